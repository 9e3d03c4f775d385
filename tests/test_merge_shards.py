"""Merging shards: a split by database, and the same pairs by the README's snippet."""

import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT, assert_one_line_error, run_script
from tree.merge_shards import choose_test_databases


@pytest.fixture
def shards(tmp_path, pair_rows):
    """Three shard files in tmp_path/output, the last one empty."""
    output = tmp_path / "output"
    output.mkdir()
    for number, rows in enumerate((pair_rows[:7], pair_rows[7:], [])):
        for strategy in ("emerge", "baseline"):
            (output / f"final_data_{strategy}_shard_{number}.json").write_text(json.dumps(rows))
    return tmp_path


def merge(folder, *flags):
    return run_script("-m", "tree.merge_shards", *flags, cwd=folder)


def test_no_database_is_on_both_sides(shards, pair_rows):
    run = merge(shards)
    assert run.returncode == 0, run.stderr
    train, test = (json.loads((shards / f"final_data_{side}.json").read_text()) for side in ("train", "test"))
    assert Counter(map(json.dumps, train + test)) == Counter(map(json.dumps, pair_rows))
    assert train and test
    assert not {row["db_id"] for row in train} & {row["db_id"] for row in test}
    assert f"final_data_train.json: {len(train)} pairs" in run.stdout
    manifest = json.loads((shards / "final_data_train.manifest.json").read_text())
    assert manifest["counts"]["train"] == len(train) and len(manifest["inputs"]) == 3


def test_named_test_databases(shards):
    assert merge(shards, "--test_dbs", "shop").returncode == 0
    assert {row["db_id"] for row in json.loads((shards / "final_data_test.json").read_text())} == {"shop"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--test_dbs", "nowhere"), "nowhere"),
        (("--test_dbs", "shop,store"), "every database"),
        (("--test_dbs", ","), "names no database"),
        (("--test_fraction", "1.5"), "1.5"),
        (("--output_dir", "elsewhere"), "elsewhere"),
    ],
)
def test_wrong_arguments(shards, flags, words):
    assert_one_line_error(merge(shards, *flags), words)
    assert not (shards / "final_data_train.json").exists()


@pytest.mark.parametrize("content", ["[{]", '{"a": 1}', '[{"prompt": "text"}]'])
def test_a_broken_shard_is_named(shards, content):
    (shards / "output" / "final_data_emerge_shard_1.json").write_text(content)
    assert_one_line_error(merge(shards), "final_data_emerge_shard_1.json")
    assert not (shards / "final_data_train.json").exists()


def test_shards_without_pairs(shards):
    for path in (shards / "output").iterdir():
        path.write_text("[]")
    assert_one_line_error(merge(shards), "no pairs")


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_snippet_of_the_readme_merges_the_same_files(shards, pair_rows, page):
    (snippet,) = re.findall(r"```python\n(import glob.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    run = run_script("-c", snippet, cwd=shards)
    assert run.returncode == 0, run.stderr
    assert json.loads((shards / "final_data_train.json").read_text()) == pair_rows


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 50), min_size=2), st.floats(0.01, 0.99))
def test_some_databases_are_for_testing_and_some_are_not(sizes, fraction):
    counts = Counter(sizes)
    chosen = choose_test_databases(counts, fraction)
    assert chosen and chosen < set(counts)
    size = sum(counts[db_id] for db_id in chosen)
    assert size <= fraction * counts.total() or len(chosen) == 1
    assert chosen == choose_test_databases(Counter(dict(reversed(list(sizes.items())))), fraction)
