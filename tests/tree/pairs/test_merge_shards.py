"""Merging shards: only all those of one run, a split by database, in little memory; and the README's snippet."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import write_json_list
from common.manifest import file_fingerprint
from tests.conftest import ROOT, assert_one_line_error, run_script
from tree.merge_shards import choose_test_databases
from tree.pairs.pair_files import PairManifest, pair_manifest_path, read_pair_manifest
from tree.pairs.shard import PER_SHARD, shard_of
from tree.run.settings import parse_arguments

RUN = {"data_fingerprint": "d4", "model_fingerprint": "m1", "num_shards": 3, "seed": 0, "max_pairs": 16}


@pytest.fixture
def rows(pair_rows) -> list[dict]:
    return [row | {"rejected_outcome": "ok", "difficulty": ""} for row in pair_rows]


def put(folder: Path, number: int, content: Iterable[dict], strategy: str = "emerge", **changes) -> Path:
    """A shard's pair file and its manifest."""
    path = folder / "output" / f"final_data_{strategy}_shard_{number}.json"
    pairs = write_json_list(path, content)
    manifest = PairManifest(
        strategy=strategy,
        shard_id=number,
        run=RUN,
        sha256=file_fingerprint(path),
        trees=3,
        pairs=pairs,
        rejecting_rows=pairs,
        between_wrong=0,
        dropped={"fragile": 1, "disagreeing": 0, "repeated": number, "over the cap": 0},
        grown_with={"python": "3.11", "git_revision": "a1"},
        extracted_with={"python": "3.11", "git_revision": "a1"},
    )
    replace(manifest, **changes).write(path)
    return path


@pytest.fixture
def shards(tmp_path, rows) -> Path:
    """The folder over `output` with three shards, the last one empty."""
    for number, part in enumerate((rows[:6], rows[6:], [])):
        for strategy in ("emerge", "baseline"):
            put(tmp_path, number, part, strategy)
    return tmp_path


def merge(folder, *flags):
    return run_script("-m", "tree.merge_shards", *flags, cwd=folder)


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def refused(folder: Path, *words: str, flags: tuple = ()) -> None:
    """Merging ends with one line that holds `words`, and writes nothing."""
    before = sorted(folder.iterdir())
    assert_one_line_error(merge(folder, *flags), *words)
    assert sorted(folder.iterdir()) == before


def test_no_database_is_on_both_sides(shards, rows):
    run = merge(shards)
    assert run.returncode == 0, run.stderr
    assert "warning" not in run.stdout
    train, test = (read(shards / f"final_data_{side}.json") for side in ("train", "test"))
    assert Counter(map(json.dumps, train + test)) == Counter(map(json.dumps, rows))
    assert train and test
    assert not {row["db_id"] for row in train} & {row["db_id"] for row in test}
    assert f"final_data_train.json: {len(train)} pairs" in run.stdout
    manifest = read(shards / "final_data_train.manifest.json")
    assert manifest["counts"]["train"] == len(train) and len(manifest["inputs"]) == 3
    assert manifest["run"] == RUN and manifest["counts"]["dropped"]["repeated"] == 3
    card = (shards / "final_data_train.md").read_text(encoding="utf-8")
    assert f"| pairs | {len(train)} | {len(test)} |" in card


def test_named_test_databases(shards):
    assert merge(shards, "--test_dbs", "shop", "--strategy", "baseline").returncode == 0
    assert {row["db_id"] for row in read(shards / "final_data_test.json")} == {"shop"}


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
    refused(shards, words, flags=flags)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[{]", "broken JSON at line 1"),
        ('{"a": 1}', "row 0 has no 'chosen'"),
        ('[{"prompt": 3, "chosen": "SELECT 1", "rejected": "SELECT 2"}]', "'prompt' is int"),
        ('[{"prompt": "text", "chosen": "SELECT 1", "rejected": "SELECT 2"}]', "no 'chosen_result'"),
    ],
)
def test_a_broken_shard_is_named(shards, content, words):
    path = shards / "output" / "final_data_emerge_shard_1.json"
    path.write_text(content)
    replace(read_pair_manifest(path, ""), sha256=file_fingerprint(path)).write(path)
    refused(shards, "final_data_emerge_shard_1.json", words)


def test_a_prompt_that_is_no_message_is_named(shards, rows):
    put(shards, 1, [*rows[6:8], rows[8] | {"prompt": ["text"]}])
    refused(shards, "final_data_emerge_shard_1.json: row 2: prompt must be")


def test_shards_without_pairs(shards):
    for number in range(3):
        put(shards, number, [])
    refused(shards, "no pairs")


def test_pairs_on_one_database(shards, rows):
    for number in range(3):
        put(shards, number, rows[2 * number : 2 * number + 2])
    refused(shards, "one database only (shop)")


# --- shards that do not belong together -----------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [{"seed": 1}, {"data_fingerprint": "d5"}, {"num_shards": 4}, {"max_pairs": 0}])
def test_shards_of_different_runs(shards, rows, setting):
    put(shards, 1, rows[6:], run=RUN | setting)
    ((name, value),) = setting.items()
    named = ("final_data_emerge_shard_0.json", "final_data_emerge_shard_1.json", "extract all pairs again")
    refused(shards, *named, f"({name}: {RUN[name]} -> {value})")


def test_shards_on_different_databases(shards, rows):
    for number, databases in enumerate(({"shop": "a1", "store": "b1"}, {"shop": "a1", "store": "b2"}, {})):
        put(shards, number, rows[3 * number : 3 * number + 3], run=RUN | {"databases": databases})
    refused(shards, "shard_0.json", "shard_1.json are of different runs (database store: b1 -> b2)")
    put(shards, 1, rows[3:6], run=RUN | {"databases": {"shop": "a1"}})
    refused(shards, "database store: b1 -> not recorded")


def test_a_setting_that_one_of_the_runs_did_not_have(shards, rows):
    put(shards, 1, rows[6:], run=RUN | {"schema_format": "ddl"})
    refused(shards, "schema_format: not recorded -> ddl")


def test_missing_shards_are_named(shards):
    for number in (0, 2):
        path = shards / "output" / f"final_data_emerge_shard_{number}.json"
        path.unlink()
    refused(shards, "has 3 shards", "no pairs of shard 0, 2", "--shard_id 0", "tree.dpo_extractor")


@pytest.mark.parametrize(("number", "strategy"), [(0, "emerge"), (1, "baseline")])
def test_a_copied_shard(shards, number, strategy):
    source, target = (
        shards / "output" / f"final_data_{name}.json" for name in (f"{strategy}_shard_{number}", "emerge_shard_1")
    )
    target.write_bytes(source.read_bytes())
    pair_manifest_path(target).write_bytes(pair_manifest_path(source).read_bytes())
    refused(shards, f"{target.name}: its manifest is that of shard {number} ({strategy}), so it is a copy")


def test_a_shard_without_manifest(shards):
    trees = shards / "output" / "tree_dataset" / "part1" / "20260101_120000" / "all_trees.json"
    trees.parent.mkdir(parents=True)
    trees.write_text("[]")
    path = pair_manifest_path(shards / "output" / "final_data_emerge_shard_1.json")
    path.write_text('{"strategy": "emerge"}')
    refused(shards, "manifest_emerge_shard_1.json: not the manifest of a pair file", "'shard_id'")
    path.unlink()
    newest = "output/tree_dataset/part1/20260101_120000/all_trees.json"
    refused(shards, "manifest_emerge_shard_1.json is not beside it", f"tree.dpo_extractor --tree_file {newest}")


def test_a_shard_that_was_changed(shards, rows):
    path = shards / "output" / "final_data_emerge_shard_1.json"
    write_json_list(path, rows[6:-1])
    refused(shards, "final_data_emerge_shard_1.json: changed since", "tree.dpo_extractor")


def test_the_same_question_in_two_shards(shards, rows):
    put(shards, 2, rows[6:7])
    refused(shards, "question 3", "final_data_emerge_shard_1.json", "final_data_emerge_shard_2.json: row 0")


def test_a_question_on_two_databases(shards, rows):
    put(shards, 1, [*rows[6:], rows[6] | {"db_id": "store"}])
    refused(shards, "question 3 has pairs on two databases, shop and store")


def test_the_same_prompt_on_both_sides(shards, rows):
    twin = rows[-1] | {"prompt": rows[0]["prompt"]}
    put(shards, 1, [*rows[6:-1], twin])
    refused(shards, "questions 0 (shop) and 5 (store) have the same prompt", "more databases")
    other = {"db_id": "bank", "question_id": 9, "prompt": [{"role": "user", "content": "other"}]}
    put(shards, 2, [row | other for row in rows[:1]])
    refused(shards, "keep their databases on one side: --test_dbs shop,store", flags=("--test_dbs", "store"))
    assert merge(shards, "--test_dbs", "shop,store").returncode == 0
    assert merge(shards, "--test_dbs", "bank").returncode == 0


def test_other_code_is_a_warning(shards, rows):
    put(shards, 1, rows[6:], grown_with={"python": "3.11", "git_revision": "b2"})
    run = merge(shards)
    assert run.returncode == 0, run.stderr
    (warning,) = [line for line in run.stdout.splitlines() if line.startswith("warning")]
    assert "shard_1.json were grown with different code (git_revision: a1 -> b2)" in warning


def test_both_sides_are_replaced_or_none(shards):
    assert merge(shards).returncode == 0
    before = (shards / "final_data_train.json").read_bytes()
    (shards / "final_data_test.json").unlink()
    (shards / "final_data_test.json").mkdir()
    refused(shards, "final_data_test.json: cannot be written", flags=("--test_dbs", "shop"))
    assert (shards / "final_data_train.json").read_bytes() == before


def test_what_may_differ_between_shards_are_settings_of_the_pipeline():
    assert set(vars(parse_arguments([]))) >= PER_SHARD


def test_what_makes_a_run_is_every_other_setting():
    def run_of(*flags: str) -> dict:
        content = {
            "arguments": vars(parse_arguments(["--num_shards", "2", *flags])),
            "inputs": {"data": {"sha256": "d4"}},
            **{"model_fingerprint": "m1", "versions": {}, "git_revision": "a1", "databases": {"shop": "d1"}},
        }
        return shard_of(content).run

    same = ("--shard_id", "1", "--data", "elsewhere.json", "--output_dir", "there", "--sql_workers", "3")
    assert run_of(*same) == run_of() and run_of()["databases"] == {"shop": "d1"}
    for flags in (("--seed", "1"), ("--max_depth", "2"), ("--temperature", "0.7"), ("--match", "ex"), ("--limit", "9")):
        assert run_of(*flags) != run_of()


# --- large files ----------------------------------------------------------------------------------------------------

MEASURE = """
import re, sys
from tree.merge_shards import main
sys.argv = ["merge_shards"]
main()
# not getrusage, which counts the process that started this one too
print("PEAK", int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read()).group(1)) // 1024)
"""


def test_memory_does_not_grow_with_the_pairs(tmp_path, rows):
    text = "column TEXT, -- a value\n" * 350  # 8 KB

    def many(count: int):
        for number in range(count):
            prompt = [{"role": "user", "content": f"{text}{number // 10}"}]
            yield rows[0] | {"question_id": number // 10, "db_id": f"db_{number // 10 % 9}", "prompt": prompt}

    peaks = []
    for count in (200, 8_000):
        put(tmp_path, 0, many(count), run=RUN | {"num_shards": 1})
        run = run_script("-c", MEASURE, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        peaks.append(int(run.stdout.split("PEAK")[1]))
    assert (tmp_path / "output" / "final_data_emerge_shard_0.json").stat().st_size > 64_000_000
    assert peaks[1] - peaks[0] < 30  # MB


# --- the snippet, the choice of databases ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_snippet_of_the_readme_merges_the_same_files(shards, rows, page):
    (snippet,) = re.findall(r"```python\n(import glob.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    run = run_script("-c", snippet, cwd=shards)
    assert run.returncode == 0, run.stderr
    assert json.loads((shards / "final_data_train.json").read_text()) == rows


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 50), min_size=2), st.floats(0.01, 0.99))
def test_some_databases_are_for_testing_and_some_are_not(sizes, fraction):
    counts = Counter(sizes)
    chosen = choose_test_databases(counts, fraction)
    assert chosen and chosen < set(counts)
    size = sum(counts[db_id] for db_id in chosen)
    assert size <= fraction * counts.total() or len(chosen) == 1
    assert chosen == choose_test_databases(Counter(dict(reversed(list(sizes.items())))), fraction)
