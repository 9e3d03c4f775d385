"""What no script can use: each ends with one line that names it and the fix, before anything is written."""

import json
import shutil
from pathlib import Path

import pytest

from tests.builders import shop_tree
from tests.conftest import assert_one_line_error, run_main

TRAIN = "train --model_id model --data_path pairs.json"
TEST = "evaluate --base_model model --adapters none --test_data pairs.json"
CHOOSE = "evaluate --base_model model --adapters none --db_root databases --candidates candidates.json"
GROW = "tree.run_pipeline --model model --db_root databases --data train.json"
SEARCH = "tree.search --model model --base_model model --adapter adapter --db_root databases --data train.json"
REVISE = "tree.train_reviser --model_id model --tree_files all_trees.json"
VERIFY = "eval.__main__ --db_root databases --tree_file all_trees.json"
JUDGE = "eval.execution_accuracy --db_root databases --questions train.json --predictions predict.json"
QUESTIONS_OF_JUDGE = "eval.execution_accuracy --db_root databases --predictions predict.json --questions train.json"
# each reads the file that it ends with, and says what helps when that is not what it takes
READERS = {
    "add_question_id --file train.json": "bash data/download_bird.sh",
    TRAIN: "python -m tree.merge_shards",
    TEST: "python -m tree.merge_shards",
    CHOOSE: "all_trees.json of step 4.1",
    GROW: "python data/build_demo.py",
    SEARCH: "python data/build_demo.py",
    "tree.dpo_extractor --tree_file all_trees.json": "bash tree/run_parallel.sh",
    VERIFY: "bash tree/run_parallel.sh",
    REVISE: "bash tree/run_parallel.sh",
    f"{VERIFY} --pairs pairs.json": "python -m tree.merge_shards",
    JUDGE: "a list of {question_id, SQL}",
    QUESTIONS_OF_JUDGE: "python data/build_demo.py",
}


@pytest.fixture
def folder(tmp_path: Path, dataset: Path, pair_rows: list[dict], tiny_model: Path, adapter: Path) -> Path:
    """A folder in which every file is right."""
    questions = json.loads(dataset.read_text())
    contents = {
        "pairs": pair_rows,
        "all_trees": [shop_tree(tmp_path / "databases" / "shop" / "shop.sqlite")],
        "candidates": [row | {"candidates": ["SELECT 1"]} for row in questions],
        "predict": {row["question_id"]: "SELECT 1" for row in questions},
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copytree(adapter, tmp_path / "adapter")
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, command: str, *words: str) -> None:
    """The command, run in the folder, ends with one line that holds the words, and leaves all files as they are."""
    before = contents(folder)
    script, *flags = command.split()
    assert_one_line_error(run_main(script, *flags, cwd=folder), *words)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("no such file", "{fix}")),
        ("[{]", ("broken JSON at line 1",)),
        ("7", ("expected a JSON list", "{fix}")),
        ("[]", ("{empty}",)),
        ("[7]", ("{item} 0",)),
        ('[{"other": 1}, {}]', ("{item} 0",)),
        ('[{"text": "\\ud83d"}]', ("row 0: 'text' holds half of a surrogate pair",)),
    ],
)
@pytest.mark.parametrize("command", READERS)
def test_a_file_of_another_kind(folder, command, content, words):
    name = command.split()[-1]
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    item = "tree" if name == "all_trees.json" else "row"
    empty = "no candidates" if command == CHOOSE else "an empty list"
    refused(folder, command, name, *(word.format(fix=READERS[command], item=item, empty=empty) for word in words))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such database; check --db_root"),
        (b"no database", "not a SQLite database; download or build it again"),
        (b"SQLite format 3\0" + bytes.fromhex("10000101") + b"\0" * 80, "download or build it again"),
    ],
)
@pytest.mark.parametrize("command", [CHOOSE, GROW, SEARCH, VERIFY, JUDGE])
def test_a_database_that_is_none(folder, command, content, words):
    path = folder / "databases" / "shop" / "shop.sqlite"
    path.unlink() if content is None else path.write_bytes(content)
    refused(folder, command, f"{path.relative_to(folder)}: ", words)


def cut_weights(model: Path) -> None:
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:-100])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "model: no such model folder; fetch it with `bash download_model.sh`"),
        (lambda model: (model / "config.json").unlink(), "model: config.json is missing"),
        (lambda model: (model / "model.safetensors").unlink(), "model.safetensors: missing"),
        (cut_weights, "bytes where"),
    ],
)
@pytest.mark.parametrize("command", [TRAIN, TEST, GROW, REVISE, SEARCH])
def test_a_model_that_is_not_whole(folder, command, damage, words):
    damage(folder / "model")
    refused(folder, command, words)
