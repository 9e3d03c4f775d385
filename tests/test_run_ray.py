"""Many machines end with the files of one, also when a machine is lost in the middle; and the job array of Slurm.

The machines are local Ray nodes that claim a GPU each, the generator is a fake.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import QUESTIONS, ROOT, SHOP, assert_one_line_error, make_database, run_script

SHARDS = 3
FAKE = """
import sys

if "tree.run_pipeline" in sys.orig_argv:
    import asyncio
    import os

    from tests.test_run_pipeline import FakeGenerator
    from tree import generator

    class SlowGenerator(FakeGenerator):
        async def sample(self, messages, n, seed):
            await asyncio.sleep(float(os.environ.get("SECONDS_PER_REQUEST", 0)))
            return await super().sample(messages, n, seed)

    generator.Generator = SlowGenerator
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with train.json and databases: six databases with three questions each."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for db_id in "abcdef":
        # a table of its own, so that no prompt is that of another database
        script = f"{SHOP} CREATE TABLE note_{db_id} (id INTEGER);"
        make_database(folder / "databases" / db_id / f"{db_id}.sqlite", script)
        rows += [{"db_id": db_id, "question": question, "evidence": "", "SQL": sql} for question, sql in QUESTIONS]
    rows = [{"question_id": number, **row} for number, row in enumerate(rows)]
    (folder / "train.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def workers(tmp_path_factory) -> dict[str, str]:
    """The environment in which every worker has the fake generator."""
    folder = tmp_path_factory.mktemp("fake")
    (folder / "sitecustomize.py").write_text(FAKE)
    return {"PYTHONPATH": f"{folder}:{ROOT}", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def one_machine(data, tiny_model, workers, tmp_path_factory) -> dict[str, bytes]:
    """The files of the single-machine run."""
    output = tmp_path_factory.mktemp("one")
    settings = settings_of_scripts(data, tiny_model, output)
    run = run_script("tree/run_parallel.sh", NUM_GPUS="0", NUM_WORKERS=str(SHARDS), **settings, **workers)
    assert run.returncode == 0, run.stderr
    return results(output)


def settings_of_scripts(data: Path, model: Path, output: Path) -> dict[str, str]:
    places = {"DATA_PATH": data / "train.json", "DB_ROOT": data / "databases", "MODEL_PATH": model}
    return {name: str(path) for name, path in places.items()} | {"OUTPUT_DIR": str(output)}


def results(output: Path) -> dict[str, bytes]:
    """The trees and pairs of each shard and the merged pairs."""
    merged = output / "merged"
    merged.mkdir()
    run = run_script("-m", "tree.merge_shards", "--output_dir", output, "--test_fraction", "0.3", cwd=merged)
    assert run.returncode == 0, run.stderr
    found = {}
    for shard in range(SHARDS):
        [trees] = output.glob(f"tree_dataset/part{shard}/*/all_trees.json")
        found[f"trees {shard}"] = trees.read_bytes()
    pairs = [*output.glob("final_data_*_shard_*.json"), *merged.glob("final_data_t*.json")]
    return found | {path.name: path.read_bytes() for path in pairs if "manifest" not in path.name}


@pytest.fixture
def cluster(workers, monkeypatch):
    """Two nodes with a claimed GPU each; the driver is on the first."""
    from ray.cluster_utils import Cluster

    for name, value in (workers | {"SECONDS_PER_REQUEST": "0.5"}).items():
        monkeypatch.setenv(name, value)
    node = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100_000_000}
    found = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    found.second = found.add_node(**node)
    yield found
    found.shutdown()


def ray_command(data: Path, model: Path, output: Path, address: str, *flags: str) -> list[str]:
    places = ("--data", data / "train.json", "--db_root", data / "databases", "--model", model, "--output_dir", output)
    command = ("-m", "tree.run_ray", "--address", address, "--num_shards", SHARDS, *places, *flags)
    return list(map(str, command))


def wait_for(what, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def test_a_lost_machine_changes_no_file(cluster, data, tiny_model, one_machine, tmp_path):
    command = ray_command(data, tiny_model, tmp_path, cluster.address, "--trees_in_flight", "1")
    driver = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        # each node has a shard in hand that is neither at its beginning nor at its end
        wait_for(lambda: len([path for path in tmp_path.glob("tree_dataset/*/*/*.jsonl") if path.stat().st_size]) == 2)
        assert not list(tmp_path.glob("tree_dataset/*/*/all_trees.json"))
        cluster.remove_node(cluster.second, allow_graceful=False)
        said, _ = driver.communicate(timeout=120)
    finally:
        driver.kill()
    assert driver.returncode == 0, said
    assert "was lost" in said and "trying again, 1 of 3" in said
    assert results(tmp_path) == one_machine
