"""Grow revision trees on all machines of a Ray cluster (step 4.1), shard by shard, with the workers of one machine.

    python -m tree.cluster.run_ray                                                 # a GPU for each shard
    python -m tree.cluster.run_ray --num_shards 16 --address head-node:6379 --num_roots 16
    python -m tree.cluster.run_ray --address local --cpus 2 --model Qwen2.5-Coder-0.5B-Instruct --limit 10 \\
        --data data/demo/train.json --db_root data/demo/train_databases            # this machine's CPU, no cluster

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
import sys
import time
import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import ModuleType

from common.files import InputError, check_writable, run_script
from tree.cluster import ray_shard
from tree.cluster.ray_shard import POLL, RayRun, ShardResult
from tree.questions import limited, load_questions, shard_count, shards
from tree.run.settings import parse_arguments as parse_run_arguments
from tree.run_table import table

CONNECT = 10.0  # seconds in which a cluster must answer
LOST = -1_000  # in the place of an exit code: Ray lost the machine, or its process there
PAUSE = 10.0  # seconds before a shard is given out again, in which what is left of the lost worker ends


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


def connect(address: str) -> ModuleType:
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


def shards_at_once(ray: ModuleType, cpus: int) -> int:
    """How many shards the cluster can work on at a time. Raises InputError for none."""
    kind, amount = ("CPU", cpus) if cpus else ("GPU", 1)
    found = sum(int(node["Resources"].get(kind, 0) // amount) for node in ray.nodes() if node["Alive"])
    if not found:
        missing = f"{cpus} CPU cores" if cpus else "a GPU; to run on CPUs give the cores of a shard with --cpus"
        raise InputError(f"no machine of the cluster has {missing}")
    return found


class Driver:
    """Gives shards to the cluster until each is done, and shows what they do.

    A shard is running (its task is in flight), due again at a moment (it was lost or failed), done, or given up.
    """

    def __init__(self, ray: ModuleType, run: RayRun, sizes: list[int], cpus: int, retries: int):
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
        from tqdm import tqdm

        self.run, self.done, self.given_up = run, set(), set()
        self.bar = tqdm(total=sum(sizes), desc="trees", unit="tree")
        self._ray, self._sizes, self._retries = ray, sizes, retries
        self._tries: Counter[int] = Counter()
        self._running: dict = {}  # task -> shard
        self._due: dict[int, float] = {}
        ray.cloudpickle.register_pickle_by_value(ray_shard)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = ray.remote(num_cpus=0)(ray_shard.DriverBoard).options(scheduling_strategy=here)
        self._board = board.remote(run.output)
        resources = {"num_cpus": cpus} if cpus else {"num_gpus": 1}
        # lost tasks are given out again here, where it is counted and told
        self._task = ray.remote(max_retries=0, **resources)(ray_shard.run_shard)

    def finish_all(self) -> None:
        """Return when every shard is done or given up. Raises InputError when the input of one is wrong."""
        for shard in range(self.run.num_shards):
            self._start(shard)
        while self._running or self._due:
            for task in self._ray.wait(list(self._running), timeout=POLL)[0] if self._running else ():
                self._end(self._running.pop(task), self._result(task))
            for shard in [shard for shard, moment in self._due.items() if moment <= time.monotonic()]:
                del self._due[shard]
                self._start(shard)
            self._show()

    def _start(self, shard: int) -> None:
        board = ray_shard.RemoteBoard(self._board)
        task = self._task.remote(shard, self.run, board, resumed=self._tries[shard] > 0)
        self._running[task] = shard
        self._tries[shard] += 1

    def _result(self, task) -> ShardResult:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            is_own = isinstance(error, self._ray.exceptions.RayTaskError)  # Ray's traceback ends with its reason
            reason = lines[-1] if is_own else lines[0].split(". ")[0]
            return ShardResult(LOST, "", f"{type(error).__name__}: {reason}")

    def _end(self, shard: int, result: ShardResult) -> None:
        """Take in what came of a shard. Raises InputError when its input is wrong."""
        ended = f"shard {shard} ended on {result.machine} with exit code {result.code}"
        what = f"shard {shard} was lost" if result.code == LOST else ended
        tries = self._tries[shard]
        if result.code == 0:
            self.done.add(shard)
            ray_shard.write_files(Path(self.run.output_dir), result.files, replace=True)
            self.bar.write(f"{result.line} ({result.machine}, {result.seconds:.0f} s)")
        elif result.code == 2 and tries == 1:
            # what is wrong with the input shows at once; later it is a lost worker that still holds the shard
            raise InputError(f"{what}: {result.line.removeprefix('error: ')}")
        elif tries <= self._retries:
            self.bar.write(f"{what} ({result.line}); trying again, {tries} of {self._retries}")
            self._due[shard] = time.monotonic() + PAUSE
        else:
            self.bar.write(f"{what} ({result.line}); given up after {tries} tries")
            self.given_up.add(shard)

    def _show(self) -> None:
        trees = self._ray.get(self._board.trees.remote())
        running = [min(trees.get(shard, 0), self._sizes[shard]) for shard in self._running.values()]
        self.bar.set_postfix_str(f"{len(self.done)} of {self.run.num_shards} shards done", refresh=False)
        self.bar.update(sum(self._sizes[shard] for shard in self.done) + sum(running) - self.bar.n)


def report(driver: Driver, no_gold: bool) -> int:
    """Print a table of the shards and what to do next; the exit code."""
    shards, output_dir = driver.run.num_shards, driver.run.output_dir
    print("\n".join(table(output_dir)) if driver.done else "no shard is done")
    if driver.given_up:
        numbers = " ".join(map(str, sorted(driver.given_up)))
        failed = f"{len(driver.given_up)} of {shards} shards failed: {numbers}"
        print(f"error: {failed}; see {output_dir}/logs on their machines", file=sys.stderr)
        return 1
    merge = "" if no_gold else f"; next: python -m tree.merge_shards --output_dir {output_dir}"
    print(f"all {shards} shards are in {output_dir}{merge}")
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
    count = shards_at_once(ray, own.cpus)
    num_shards = own.num_shards or shard_count(len(questions), count)
    marker = Path(args.output_dir) / f".ray_{uuid.uuid4().hex}"
    check_writable(marker)
    kind = f"times {own.cpus} CPU cores" if own.cpus else "GPUs"
    print(f"{len(questions)} questions in {num_shards} shards on {count} {kind}", flush=True)
    run = RayRun(tuple(flags), num_shards, args.output_dir, os.getcwd(), marker.name, own.cpus > 0)
    sizes = [len(part) for part in shards(questions, num_shards)]

    # --- the run ---
    try:
        marker.touch()
        driver = Driver(ray, run, sizes, own.cpus, own.retries)
        with closing(driver.bar):
            driver.finish_all()
    except KeyboardInterrupt:
        hint = " and without --fresh" if args.fresh else ""
        print(f"to resume, run the same command with --num_shards {num_shards}{hint}", file=sys.stderr)
        raise
    finally:
        marker.unlink(missing_ok=True)
        ray.shutdown()  # which ends the workers
    return report(driver, args.no_gold)


if __name__ == "__main__":
    run_script(main)
