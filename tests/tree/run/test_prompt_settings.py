"""What prompts are made with travels from trees over pairs to the adapter, which is asked behind its own."""

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from common.files import InputError
from common.manifest import MERGED_MANIFEST
from eval.adapter_prompts import with_prompts
from eval.candidates import read_pools
from reward.model import load_reward_model, score
from reward.tokens import load_tokenizer
from tests.conftest import assert_one_line_error, run_main
from tests.fake_worker import FakeGenerator
from tree import merge_shards, run_pipeline
from tree.run.prompt_settings import PromptSettings, made_with

DDL, MSCHEMA = PromptSettings(), PromptSettings("mschema")


@pytest.fixture
def grown(dataset, tiny_model, tmp_path, monkeypatch):
    """Grows trees in tmp_path with a fake generator and merges their pairs; returns the tree file."""
    monkeypatch.setattr(run_pipeline, "Generator", FakeGenerator)
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect(dataset.parent / "databases" / "store" / "store.sqlite") as connection:
        connection.execute("CREATE TABLE only_here (a TEXT)")  # so that no prompt is on both databases

    def run(*flags: str) -> Path:
        shutil.rmtree("output", ignore_errors=True)
        places = ["--data", dataset, "--db_root", dataset.parent / "databases", "--model", tiny_model]
        monkeypatch.setattr(sys, "argv", ["run_pipeline", *map(str, places), *flags])
        run_pipeline.main()
        monkeypatch.setattr(sys, "argv", ["merge_shards"])
        merge_shards.main()
        [tree_file] = Path("output").glob("tree_dataset/part0/*/all_trees.json")
        return tree_file

    return run


def bare(path: Path, dataset: Path) -> Path:
    """A list of candidates without prompts: predictions of another system."""
    rows = json.loads(dataset.read_text())
    path.write_text(json.dumps([row | {"candidates": [row["SQL"], "SELECT 1"]} for row in rows]))
    return path


# --- from trees to pairs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ((), DDL),
        (("--schema_format", "mschema"), MSCHEMA),
        (("--schema_format", "mschema", "--no_values"), PromptSettings("mschema", no_values=True)),
        # with the opening of the reply, which counts, one prompt is just too long
        (("--max_prompt_tokens", "744"), PromptSettings(max_prompt_tokens=744)),
        # what is recorded is what the prompts had to fit into, whichever flag said so
        (("--max_model_len", "1044", "--max_tokens", "300"), PromptSettings(max_prompt_tokens=744)),
        (("--max_prompt_tokens", "0", "--max_tokens", "300"), PromptSettings(max_prompt_tokens=16_384 - 300)),
    ],
)
def test_prompts_made_again_are_those_of_the_trees(grown, dataset, tiny_model, flags, settings):
    tree_file = grown(*flags)
    files = [tree_file, *(Path("output") / f"final_data_{name}_shard_0.json" for name in ("emerge", "baseline"))]
    files += [Path("final_data_train.json"), Path("final_data_test.json")]
    assert [made_with(path) for path in files] == [settings] * 5
    trees = json.loads(tree_file.read_text())
    asked = read_pools(str(bare(dataset.with_name("candidates.json"), dataset)))
    again = with_prompts(
        asked, settings, "candidates.json", str(dataset.parent / "databases"), load_tokenizer(tiny_model)
    )
    assert [one.prompt for one in again] == [tree["node_initial"]["input_seq"] for tree in trees]
    assert any(tree["node_initial"]["shortened"] for tree in trees) == (settings.max_prompt_tokens == 744)


def test_a_file_that_is_not_the_one_of_the_manifest_says_nothing(grown, tmp_path):
    grown("--schema_format", "mschema")
    train = Path("final_data_train.json")
    rows = json.loads(train.read_text())
    train.write_text(json.dumps(rows, indent=2))  # as the README's lines leave it, beside an older manifest
    assert made_with(train) is None and made_with(Path("final_data_test.json")) == MSCHEMA
    shard = Path("output/final_data_emerge_shard_0.json")
    shard.write_text(json.dumps(rows))
    assert made_with(shard) is None
    moved = tmp_path / "elsewhere" / "final_data_test.json"
    moved.parent.mkdir()
    shutil.copy("final_data_test.json", moved)
    assert made_with(moved) is None
    shutil.copy(MERGED_MANIFEST, moved.parent)
    assert made_with(moved) == MSCHEMA
    Path(MERGED_MANIFEST).write_text("{")
    with pytest.raises(InputError, match=MERGED_MANIFEST):
        made_with("final_data_test.json")


@pytest.mark.parametrize(
    "recorded",
    [
        None,
        [],
        {},
        {"schema_format": "ddl", "no_values": False},
        {"schema_format": "xml", "no_values": False, "max_prompt_tokens": 9},
        {"schema_format": "ddl", "no_values": "no", "max_prompt_tokens": 9},
        {"schema_format": "ddl", "no_values": False, "max_prompt_tokens": True},
        {"schema_format": ["ddl"], "no_values": False, "max_prompt_tokens": 0},
    ],
)
def test_what_is_not_recorded_whole_is_unknown(recorded):
    assert PromptSettings.of(recorded) is None


# --- from pairs over the adapter to its evaluation --------------------------------------------------------------------


def train(data: Path, adapter: Path, base: Path):
    run = run_main(
        *("train", "--model_id", base, "--data_path", data.resolve(), "--output_dir", adapter),
        *("--max_steps", "2", "--learning_rate", "0.05", "--validation_fraction", "0"),
    )
    assert run.returncode == 0, run.stderr
    return run


def evaluate(base: Path, folder: Path, *flags: str | Path):
    return run_main(
        *("evaluate", "--base_model", base, "--db_root", folder / "databases", "--dtype", "float32"),
        *("--allow_overlap", "--output_file", folder / "report.json", *flags),
    )


def recorded(adapter: Path) -> dict:
    return json.loads((adapter / "trained_on.json").read_text())


def with_settings(adapter: Path, name: str, settings: object) -> Path:
    """A copy of the adapter that says something else of its prompts."""
    copy = adapter.with_name(name)
    shutil.copytree(adapter, copy)
    (copy / "trained_on.json").write_text(json.dumps(recorded(adapter) | {"prompt_settings": settings}))
    return copy


def test_each_adapter_is_asked_behind_its_own_prompts(grown, dataset, tiny_model, tmp_path):
    trees = grown("--schema_format", "mschema")
    adapter = tmp_path / "adapter"
    assert "note:" not in train(Path("final_data_train.json"), adapter, tiny_model).stdout
    assert recorded(adapter)["prompt_settings"] == vars(MSCHEMA)
    other = with_settings(adapter, "other", vars(DDL))
    unknown = with_settings(adapter, "unknown", None)
    candidates = bare(tmp_path / "candidates.json", dataset)

    # --- without prompts ---
    run = evaluate(
        *(tiny_model, tmp_path, "--candidates", candidates, "--adapters", "none", adapter, other, unknown),
    )
    assert run.returncode == 0, run.stderr
    [warning] = [line for line in run.stdout.splitlines() if line.startswith("warning:")]
    assert str(unknown) in warning and "schema_format='ddl'" in warning and "'prompt'" in warning
    report = json.loads((tmp_path / "report.json").read_text())
    tokenizer = load_tokenizer(tiny_model)
    for name, settings in zip(("none", adapter, other, unknown), (MSCHEMA, MSCHEMA, DDL, DDL), strict=True):
        asked = with_prompts(read_pools(str(candidates)), settings, "", str(tmp_path / "databases"), tokenizer)
        model, _ = load_reward_model(tiny_model, None if name == "none" else name, "float32")
        expected = score(model, tokenizer, [(one.prompt, one.queries) for one in asked])
        found = [[sql["rewards"][str(name)] for sql in row["candidates"]] for row in report["candidates"]]
        assert found == [pytest.approx(rewards, abs=1e-5) for rewards in expected], name
    assert report["manifest"]["prompt_settings"]["none"] == vars(MSCHEMA)

    # --- prompts and pairs of another kind are the user's choice, and named ---
    run = evaluate(
        *(tiny_model, tmp_path, "--candidates", trees.resolve(), "--test_data", Path("final_data_test.json").resolve()),
        *("--adapters", "none", adapter, other, unknown),
    )
    assert run.returncode == 0, run.stderr
    warnings = [line for line in run.stdout.splitlines() if line.startswith("warning:") and "votes" not in line]
    assert len(warnings) == 2 and all(str(other) in line for line in warnings)
    assert all("schema_format: ddl -> mschema" in line for line in warnings)

    # --- nonsense is an error ---
    broken = with_settings(adapter, "broken", {"schema_format": "xml"})
    run = evaluate(tiny_model, tmp_path, "--candidates", candidates, "--adapters", broken)
    assert_one_line_error(run, "broken", "trained_on.json", "prompt_settings")
