"""One shard with a fake generator: its questions, a worker that tests can kill, and what an undisturbed run writes."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import QUESTIONS, make_database, run_main, run_script
from tests.fake_worker import pretend

COUNT = 10  # questions of each of two databases
RESULTS = ("final_data_emerge_shard_0.json", "final_data_baseline_shard_0.json")


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def places(tmp_path_factory, tiny_model) -> list[str]:
    """Flags that name the questions, their databases and the model."""
    folder = tmp_path_factory.mktemp("shop")
    rows = []
    for db_id in ("shop", "store"):
        make_database(folder / "databases" / db_id / f"{db_id}.sqlite")
        for number in range(COUNT):
            question, sql = QUESTIONS[number % len(QUESTIONS)]
            text = f"Number {len(rows)}: {question}"
            rows.append({"question_id": len(rows), "db_id": db_id, "question": text, "evidence": "", "SQL": sql})
    (folder / "train.json").write_text(json.dumps(rows))
    paths = {"--data": folder / "train.json", "--db_root": folder / "databases", "--model": tiny_model}
    return [str(word) for flag in paths.items() for word in flag]


def worker_process(places, output: Path, *flags, **faults) -> subprocess.CompletedProcess:
    """A worker in a process of its own, in which something may go wrong."""
    return run_script("-m", "tests.fake_worker", *places, "--output_dir", output, *flags, **faults)


def worker(places, output: Path, *flags, **faults) -> subprocess.CompletedProcess:
    """A worker, in this process when nothing is to go wrong."""
    if faults:
        return worker_process(places, output, *flags, **faults)
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch.setattr)
        return run_main("tree.run_pipeline", *places, "--output_dir", output, *flags)


@pytest.fixture(scope="session")
def whole(places, tmp_path_factory) -> Path:
    """What an undisturbed run writes."""
    output = tmp_path_factory.mktemp("whole")
    run = worker(places, output)
    assert run.returncode == 0, run.stderr
    return output


def the_run(output: Path, shard: int = 0) -> Path:
    """Its folder; one without manifest is of a worker that was killed before its run began."""
    (manifest,) = output.glob(f"tree_dataset/part{shard}/*/manifest.json")
    return manifest.parent


def results(output: Path) -> list[bytes]:
    return [path.read_bytes() for path in (the_run(output) / "all_trees.json", *map(output.joinpath, RESULTS))]


def quarantined(output: Path) -> dict[int, str]:
    skipped = read(the_run(output) / "manifest.json")["counts"]["skipped_questions"]
    return {entry["question_id"]: entry["reason"] for entry in skipped}
