"""Grow revision trees on all machines of a Ray cluster (step 4.1), shard by shard, with the workers of one machine.

    python -m tree.run_ray                                                         # a GPU for each shard
    python -m tree.run_ray --num_shards 16 --address head-node:6379 --sample_num 8
    python -m tree.run_ray --address local --cpus 2 --data data/demo/train.json --db_root data/demo/train_databases \\
        --model Qwen2.5-Coder-0.5B-Instruct --limit 10                             # this machine's CPU, no cluster

All flags but those below go to the workers, `python -m tree.run_pipeline`. Start the cluster first: `ray start --head`
on one machine, `ray start --address head-node:6379` on the others. On each the project, its environment, data and model
lie under the same paths: in a shared folder, or as copies. The files written are those of one machine with the same
--num_shards; from machines with an --output_dir of their own they are copied into the one here. A shard whose machine
was lost is given to another. The same command with the same --num_shards continues a run that was interrupted.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from common.files import InputError, check_writable, run_script
from tree.questions import limited, load_questions, shard_count, shards
from tree.run.settings import parse_arguments as parse_run_arguments

CONNECT = 10.0  # seconds in which a cluster must answer
POLL = 1.0  # seconds between looks at a worker's journal
LOST = -1_000  # in the place of an exit code: Ray lost the machine, or its process there
PAUSE = 10.0  # seconds before a shard is given out again, in which what is left of the lost worker ends

# The worker's process group ends with the pipe on its standard input, whatever ends the process that holds the other
# end: cancelling, a crash, a lost driver. SIGKILL, because the journal is on disk.
GUARD = 'exec 3<&0 </dev/null; "$@" 3<&- & worker=$!; { read -r <&3; kill -KILL 0; } & wait "$worker"'


@dataclass(frozen=True)
class Run:
    """What all shards share; `marker` is a file that only those see who share the output folder with the driver."""

    flags: tuple[str, ...]
    num_shards: int
    output_dir: str
    folder: str
    marker: str
    on_cpu: bool


@dataclass(frozen=True)
class Outcome:
    """How a worker ended, on which machine, the line to show for it, and its files where they are not shared."""

    code: int
    machine: str
    line: str
    seconds: float = 0.0
    files: dict[str, bytes] = field(default_factory=dict)


# --- on the machine of a shard: without the project's modules, which Ray's processes may not find ---------------------


def run_shard(shard: int, run: Run, board, again: bool) -> Outcome:
    """Run the worker of a shard to its end, and tell the board how many trees it has.

    A worker that runs `again` goes on with what is there, also when the first was to begin anew.
    """
    start = time.monotonic()
    output = Path(run.folder) / run.output_dir
    shared = (output / run.marker).exists()
    if not shared and "--fresh" not in run.flags:
        write_files(output, board.files(shard), replace=False)
    log = output / "logs" / f"shard_{shard}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = [flag for flag in run.flags if not (again and flag == "--fresh")]
    flags += ["--shard_id", str(shard), "--num_shards", str(run.num_shards)]
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if run.on_cpu else {})
    with (
        open(log, "wb") as said,
        subprocess.Popen(
            ["bash", "-c", GUARD, "guard", sys.executable, "-m", "tree.run_pipeline", *flags],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=run.folder,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        for trees in trees_written(output, shard):
            board.report(shard, trees)
            try:
                process.wait(POLL)
                break
            except subprocess.TimeoutExpired:
                continue
    return Outcome(
        process.returncode,
        socket.gethostname(),
        last_line(log),
        time.monotonic() - start,
        {} if shared or process.returncode else files_of(output, shard),
    )


def trees_written(output: Path, shard: int) -> Iterator[int]:
    """How many trees the newest journal of a shard holds, without end."""
    path, file, trees = None, None, 0
    while True:
        part = output / "tree_dataset" / f"part{shard}"
        journals = [*part.glob("*/trees.jsonl"), *part.glob("*/candidates.jsonl")]
        newest = max(journals, key=lambda journal: journal.stat().st_mtime_ns, default=None)
        if newest != path:
            path, file, trees = newest, newest and newest.open("rb"), 0
        trees += file.read().count(b"\n") if file else 0
        yield trees


def last_line(log: Path) -> str:
    """A worker's `error:` line, else the last that it wrote."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["it wrote nothing"])[-1]


def files_of(output: Path, shard: int) -> dict[str, bytes]:
    """The files of the newest run of a shard, by their path in the output folder; none when there is no run."""
    manifests = list((output / "tree_dataset" / f"part{shard}").glob("*/manifest.json"))
    if not manifests:
        return {}
    folder = max(manifests, key=lambda manifest: manifest.stat().st_mtime_ns).parent
    paths = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if (folder / "all_trees.json").exists():
        paths += list(output.glob(f"*_shard_{shard}.json"))
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


def write_files(output: Path, files: dict[str, bytes], replace: bool) -> None:
    """Write files whole or not at all, those that are there only when they differ and are to be replaced."""
    for name, content in files.items():
        path = output / name
        if path.exists() and (not replace or path.read_bytes() == content):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


class Board:
    """On the driver's machine: how many trees each shard has, and the files that are there of earlier runs."""

    def __init__(self, output: Path):
        self.output, self.trees = output, {}

    def report(self, shard: int, trees: int) -> None:
        self.trees[shard] = trees

    def read(self) -> dict[int, int]:
        return self.trees

    def files(self, shard: int) -> dict[str, bytes]:
        return files_of(self.output, shard)


class RemoteBoard:
    """The board as a worker's machine sees it."""

    def __init__(self, actor):
        self.actor = actor

    def report(self, shard: int, trees: int) -> None:
        self.actor.report.remote(shard, trees)

    def files(self, shard: int) -> dict[str, bytes]:
        import ray

        return ray.get(self.actor.files.remote(shard))


# --- the driver -----------------------------------------------------------------------------------------------------


def parse_arguments(words: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--address", default="auto", help="Ray cluster; auto = that of this machine, local = this machine without one")
    add("--num_shards", type=int, default=0, help="shards of the questions (0 = what suits the GPUs of the cluster)")
    add("--cpus", type=int, default=0, help="run on CPUs, so many cores for each shard (0 = a GPU for each shard)")
    add("--retries", type=int, default=3, help="how often a shard is tried again that was lost or failed")
    return parser.parse_known_args(words)


def connect(address: str):
    """The ray module, connected. Raises InputError when there is no such cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    here = {"include_dashboard": False} if address == "local" else {}
    try:
        if re.fullmatch(r"[^/]+:\d+", address):  # Ray itself would try for minutes
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), CONNECT).close()
        ray.init(address=address, log_to_driver=False, logging_level="CRITICAL", **here)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--address {address}: no Ray cluster answers ({reason}); start one with `ray start --head`, "
            "or use this machine alone with --address local"
        ) from None
    return ray


def places(ray, cpus: int) -> int:
    """How many shards the cluster can work on at a time. Raises InputError for none."""
    kind, amount = ("CPU", cpus) if cpus else ("GPU", 1)
    found = sum(int(node["Resources"].get(kind, 0) // amount) for node in ray.nodes() if node["Alive"])
    if not found:
        missing = f"{cpus} CPU cores" if cpus else "a GPU; to run on CPUs give the cores of a shard with --cpus"
        raise InputError(f"no machine of the cluster has {missing}")
    return found


class Driver:
    """Gives shards to the cluster until each is done, and shows what they do."""

    def __init__(self, ray, run: Run, sizes: list[int], cpus: int, retries: int):
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
        from tqdm import tqdm

        self.ray, self.run, self.sizes, self.retries = ray, run, sizes, retries
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here)
        self.board = board.remote(Path(run.folder) / run.output_dir)
        resources = {"num_cpus": cpus} if cpus else {"num_gpus": 1}
        # lost tasks are given out again here, where it is counted and said
        self.task = ray.remote(max_retries=0, **resources)(run_shard)
        self.bar = tqdm(total=sum(sizes), desc="trees", unit="tree", mininterval=1)
        self.tries: Counter[int] = Counter()
        self.running: dict = {}
        self.later: dict[int, float] = {}
        self.done: set[int] = set()
        self.failed: set[int] = set()

    def start(self, shard: int) -> None:
        task = self.task.remote(shard, self.run, RemoteBoard(self.board), again=self.tries[shard] > 0)
        self.running[task] = shard
        self.tries[shard] += 1

    def all_shards(self) -> None:
        """Return when every shard is done or given up. Raises InputError when the input of one is wrong."""
        for shard in range(self.run.num_shards):
            self.start(shard)
        while self.running or self.later:
            for task in self.ray.wait(list(self.running), timeout=POLL)[0] if self.running else ():
                self.ended(self.running.pop(task), self.outcome(task))
            for shard in [shard for shard, due in self.later.items() if due <= time.monotonic()]:
                del self.later[shard]
                self.start(shard)
            self.show()

    def outcome(self, task) -> Outcome:
        try:
            return self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[-1] if isinstance(error, self.ray.exceptions.RayTaskError) else lines[0].split(". ")[0]
            return Outcome(LOST, "", f"{type(error).__name__}: {reason}")

    def ended(self, shard: int, outcome: Outcome) -> None:
        """Take in what came of a shard. Raises InputError when its input is wrong."""
        said = (
            f"shard {shard} was lost"
            if outcome.code == LOST
            else f"shard {shard} ended on {outcome.machine} with exit code {outcome.code}"
        )
        if outcome.code == 0:
            self.done.add(shard)
            write_files(Path(self.run.output_dir), outcome.files, replace=True)
            self.bar.write(f"{outcome.line} ({outcome.machine}, {outcome.seconds:.0f} s)")
        elif outcome.code == 2 and self.tries[shard] == 1:
            # what is wrong with the input shows at once; later it is a lost worker that still holds the shard
            raise InputError(f"{said}: {outcome.line.removeprefix('error: ')}")
        elif self.tries[shard] <= self.retries:
            self.bar.write(f"{said} ({outcome.line}); trying again, {self.tries[shard]} of {self.retries}")
            self.later[shard] = time.monotonic() + PAUSE
        else:
            self.bar.write(f"{said} ({outcome.line}); given up after {self.tries[shard]} tries")
            self.failed.add(shard)

    def show(self) -> None:
        trees = self.ray.get(self.board.read.remote())
        running = [min(trees.get(shard, 0), self.sizes[shard]) for shard in self.running.values()]
        self.bar.set_postfix_str(f"{len(self.done)} of {self.run.num_shards} shards done", refresh=False)
        self.bar.update(sum(self.sizes[shard] for shard in self.done) + sum(running) - self.bar.n)


def report(driver: Driver, args: argparse.Namespace) -> int:
    """Print a table of the shards and what to do next; the exit code."""
    from tree.run_table import table

    print("\n".join(table(args.output_dir)) if driver.done else "no shard is done")
    if driver.failed:
        numbers = " ".join(map(str, sorted(driver.failed)))
        said = f"{len(driver.failed)} of {driver.run.num_shards} shards failed: {numbers}"
        print(f"error: {said}; see {args.output_dir}/logs on their machines", file=sys.stderr)
        return 1
    merge = "" if args.no_gold else f"; next: python -m tree.merge_shards --output_dir {args.output_dir}"
    print(f"all {driver.run.num_shards} shards are in {args.output_dir}{merge}")
    return 0


def main(words: list[str] | None = None) -> int:
    own, flags = parse_arguments(words)

    # --- everything that can be wrong, before anything is started ---
    args = parse_run_arguments([*flags, "--num_shards", str(own.num_shards or 1)])
    if args.dry_run:
        raise InputError("--dry_run: use `python -m tree.run_pipeline --dry_run`, which needs no cluster")
    if own.cpus < 0 or own.retries < 0:
        raise InputError("--cpus and --retries must not be negative")
    questions = load_questions(args.data, with_gold=not args.no_gold)
    questions = limited(questions, args.limit) if args.limit else questions

    # --- the cluster ---
    ray = connect(own.address)
    count = places(ray, own.cpus)
    num_shards = own.num_shards or shard_count(len(questions), count)
    marker = Path(args.output_dir) / f".ray_{uuid.uuid4().hex}"
    check_writable(marker)
    kind = f"times {own.cpus} CPU cores" if own.cpus else "GPUs"
    print(f"{len(questions)} questions in {num_shards} shards on {count} {kind}", flush=True)
    run = Run(tuple(flags), num_shards, args.output_dir, os.getcwd(), marker.name, own.cpus > 0)
    sizes = [len(part) for part in shards(questions, num_shards)]

    # --- the run ---
    try:
        marker.touch()
        driver = Driver(ray, run, sizes, own.cpus, own.retries)
        with closing(driver.bar):
            driver.all_shards()
    except KeyboardInterrupt:
        hint = " and without --fresh" if args.fresh else ""
        print(f"to go on, run the same command with --num_shards {num_shards}{hint}", file=sys.stderr)
        raise
    finally:
        marker.unlink(missing_ok=True)
        ray.shutdown()  # which ends the workers
    return report(driver, args)


if __name__ == "__main__":
    run_script(main)
