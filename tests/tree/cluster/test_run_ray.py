"""Many machines end with the files of one, also when a machine is lost in the middle; and the job array of Slurm.

The machines are local Ray nodes that claim a GPU each, the generator is a fake.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, assert_one_line_error, run_main, run_script
from tests.shop import QUESTIONS, SHOP, make_database
from tree.cluster.ray_shard import DriverBoard, RayRun, run_shard, write_files
from tree.pairs.pair_files import read_pair_manifest
from tree.questions import shard_count

SHARDS = 3
# imported by every Python process; transformers takes seconds to load, so a worker has a fake tokenizer too
FAKE = """
import sys

if "tree.run_pipeline" in sys.orig_argv:
    import asyncio
    import os
    from pathlib import Path

    from tests.fake_worker import FakeGenerator, encode
    from tree import generator

    class GatedGenerator(FakeGenerator):
        places = {}

        async def sample(self, messages, n, seed, revises=False):
            task = messages[0]["content"]  # of a database, by its own table, and a question
            question = task.partition("note_")[2][:1], task.rpartition("Question: ")[2]
            place = self.places.setdefault(question, len(self.places))
            while place >= 3 and "GATE" in os.environ and not Path(os.environ["GATE"]).exists():
                await asyncio.sleep(0.1)
            return await super().sample(messages, n, seed, revises)

    generator.Generator, generator.encode = GatedGenerator, encode
    generator.load_tokenizer = lambda model: None
    generator.on_gpu = lambda: False
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


@pytest.fixture(scope="module")
def cluster(workers, tmp_path_factory):
    """Two nodes with a claimed GPU each; the driver is on the first. Workers wait in the middle for the file `gate`."""
    from ray.cluster_utils import Cluster

    gate = tmp_path_factory.mktemp("gate") / "open"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (workers | {"GATE": str(gate)}).items():
            patch.setenv(name, value)
        node = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100_000_000}
        found = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        found.gate, found.second = gate, found.add_node(**node)
    yield found
    found.shutdown()


def worker_flags(data: Path, model: Path, output: Path) -> list[str]:
    places = ("--data", data / "train.json", "--db_root", data / "databases", "--model", model, "--output_dir", output)
    return list(map(str, places))


def ray_command(address: str, *flags: str) -> list[str]:
    return ["-m", "tree.cluster.run_ray", "--address", address, "--num_shards", str(SHARDS), *flags]


def wait_for(what, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def shards_in_work(output: Path) -> set[str]:
    """The shards that have a living worker in `output`."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = path.read_text().split("\0")
            if str(output) in arguments and "--shard_id" in arguments:
                found.add(arguments[arguments.index("--shard_id") + 1])
    return found


def test_wrong_input_that_only_workers_see_stops_the_run(cluster, data, tiny_model, tmp_path):
    flags = worker_flags(data, tiny_model, tmp_path / "out")
    run = run_script(*ray_command(cluster.address, *flags, "--db_root", "nowhere"))
    assert_one_line_error(run, "shard", "nowhere", "no such database")
    run = run_script(*ray_command(cluster.address, *flags, "--cpus", "64"))
    assert_one_line_error(run, "64 CPU cores")
    assert not list(tmp_path.glob("out/.*"))


def test_a_lost_machine_changes_no_file(cluster, data, tiny_model, one_machine, tmp_path):
    command = ray_command(cluster.address, *worker_flags(data, tiny_model, tmp_path))
    driver = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        # each node has a shard in hand that is neither at its beginning nor at its end
        wait_for(
            lambda: len([path for path in tmp_path.glob("tree_dataset/*/*/trees.jsonl") if path.stat().st_size]) == 2
        )
        assert not list(tmp_path.glob("tree_dataset/*/*/all_trees.json"))
        assert len(shards_in_work(tmp_path)) == 2
        cluster.remove_node(cluster.second, allow_graceful=False)
        # a worker outlives its machine's Ray by a moment, in which it must not come to the end of its shard
        wait_for(lambda: len(shards_in_work(tmp_path)) == 1)
        cluster.gate.touch()
        said, _ = driver.communicate(timeout=240)
    finally:
        driver.kill()
    assert driver.returncode == 0, said
    assert "was lost" in said and "trying again, 1 of 3" in said
    assert results(tmp_path) == one_machine
    continued = [json.loads(path.read_text()).get("continued", 0) for path in tmp_path.glob("tree_dataset/*/*/man*")]
    # the lost shard goes on from its journal
    assert sorted(continued) == [0, 0, 1]


def test_files_come_back_from_folders_that_are_not_shared_and_are_not_made_twice(
    data, tiny_model, workers, one_machine, tmp_path, monkeypatch
):
    for name, value in workers.items():
        monkeypatch.setenv(name, value)
    flags = tuple(worker_flags(data, tiny_model, Path("out")))
    here = tmp_path / "here"
    for place, code in (("there", "-> out/tree_dataset/part1/"), ("elsewhere", "is finished")):
        (tmp_path / place / "out").mkdir(parents=True)
        run = RayRun(flags, SHARDS, "out", str(tmp_path / place), "no marker", on_cpu=True)
        outcome = run_shard(1, run, DriverBoard(here), resumed=False)
        assert outcome.code == 0, outcome.line
        assert code in (tmp_path / place / "out" / "logs" / "shard_1.log").read_text()
        write_files(here, outcome.files, replace=True)
    [trees] = here.glob("tree_dataset/part1/*/all_trees.json")
    assert trees.read_bytes() == one_machine["trees 1"] and (trees.parent / "manifest.json").is_file()
    for strategy in ("emerge", "baseline"):
        name = f"final_data_{strategy}_shard_1.json"
        assert (here / name).read_bytes() == one_machine[name]
        assert read_pair_manifest(here / name, "").shard_id == 1


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_ends_with_the_process_that_watches_it(end, tmp_path):
    """Also what the worker started, and what of it does not heed SIGTERM."""
    deaf = "import os, signal, time; signal.signal(15, signal.SIG_IGN); open(str(os.getpid()), 'w'); time.sleep(99)"
    both = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf!r}]); exec({deaf!r})"
    watch = (
        "import subprocess, sys; from tree.cluster.ray_shard import GUARD; "
        f"subprocess.Popen(['bash', '-c', GUARD, 'guard', sys.executable, '-c', {both!r}], "
        "stdin=subprocess.PIPE, start_new_session=True).wait()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", watch], cwd=tmp_path, env=environment) as process:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        process.send_signal(end)
    wait_for(lambda: not any(Path("/proc", path.name).exists() for path in tmp_path.iterdir()), 20)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--data", "nowhere.json"), ["nowhere.json"]),
        (("--dry_run",), ["--dry_run", "tree.run_pipeline"]),
        (("--max_depth", "0"), ["--max_depth 0"]),
        (("--retries", "-1"), ["--retries"]),
        ((), ["no Ray cluster", "ray start --head"]),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(data, tiny_model, tmp_path, flags, words):
    _, name, *command = ray_command("127.0.0.1:1", *worker_flags(data, tiny_model, tmp_path / "out"), *flags)
    assert_one_line_error(run_main(name, *command), *words)
    assert not (tmp_path / "out").exists()


def test_shards_suit_the_gpus():
    assert [shard_count(9428, gpus) for gpus in (1, 2, 4, 8, 16, 64)] == [4, 8, 16, 16, 16, 64]
    assert shard_count(10, 2) == 2


# --- Slurm ----------------------------------------------------------------------------------------------------------


def test_a_job_array_ends_with_the_files_of_one_machine(data, tiny_model, workers, one_machine, tmp_path):
    """Each job as Slurm starts it: a copy of the script elsewhere, the project as the folder it was submitted from."""
    script = tmp_path / "spool" / "slurm_script.sh"
    script.parent.mkdir()
    script.write_bytes((ROOT / "tree" / "cluster" / "run_slurm.sh").read_bytes())
    job = {"SLURM_SUBMIT_DIR": str(ROOT), "SHARDS": str(SHARDS), **workers}
    for shard in range(SHARDS):
        flags = worker_flags(data, tiny_model, tmp_path / "out")
        run = run_script(script, *flags, cwd=tmp_path, SLURM_ARRAY_TASK_ID=str(shard), **job)
        assert run.returncode == 0, run.stderr
    assert results(tmp_path / "out") == one_machine


def test_a_job_is_tried_again_when_its_worker_dies_but_not_for_wrong_input(tmp_path):
    """The worker is a script that writes down its flags, and dies twice, or ends with the exit code 2."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text('#!/bin/bash\necho "$@" >>flags\n(($(wc -l <flags) > 2)) || exit "$CODE"\n')
    python.chmod(0o755)
    command = ("bash", ROOT / "tree" / "cluster" / "run_slurm.sh", "--limit", "3", "--fresh")
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_ARRAY_TASK_ID": "5", "PAUSE": "0"}
    environment = os.environ | job | {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    first, later = (f"-m tree.run_pipeline --limit 3{fresh} --shard_id 5 --num_shards 16" for fresh in (" --fresh", ""))
    for code, ended, starts in (("137", 0, [first, later, later]), ("2", 2, [first])):
        run = subprocess.run(command, env=environment | {"CODE": code}, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == ended, run.stderr
        assert (tmp_path / "flags").read_text().splitlines() == starts
        (tmp_path / "flags").unlink()
    requeued = environment | {"CODE": "2", "SLURM_RESTART_COUNT": "1"}
    assert subprocess.run(command, env=requeued, cwd=tmp_path, capture_output=True).returncode == 2
    assert (tmp_path / "flags").read_text().splitlines() == [later]


def test_a_job_outside_of_an_array_is_refused():
    assert_one_line_error(run_script("tree/cluster/run_slurm.sh"), "sbatch tree/cluster/run_slurm.sh")
