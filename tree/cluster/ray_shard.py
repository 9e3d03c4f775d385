"""One shard of a run on Ray, on the machine that has it: its worker, its files, and what the driver is told of it.

Ray sends what is here to its processes by value, since those may not find the project: it imports no module of it.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

POLL = 1.0  # seconds between looks at a worker's log

# The worker's process group ends with the pipe on its standard input, whatever ends the process that holds the other
# end: cancelling, a crash, a lost driver. SIGKILL, because the log is on disk.
GUARD = 'exec 3<&0 </dev/null; "$@" 3<&- & worker=$!; { read -r <&3; kill -KILL 0; } & wait "$worker"'


@dataclass(frozen=True)
class RayRun:
    """What all shards share; `marker` is a file that only those see who share the output folder with the driver."""

    flags: tuple[str, ...]
    num_shards: int
    output_dir: str
    folder: str
    marker: str
    on_cpu: bool

    @property
    def output(self) -> Path:
        return Path(self.folder) / self.output_dir


@dataclass(frozen=True)
class ShardResult:
    """How a worker ended, on which machine, the line to show for it, and its files where they are not shared."""

    code: int
    machine: str
    line: str
    seconds: float = 0.0
    files: dict[str, bytes] = field(default_factory=dict)


class Board(Protocol):
    """Where the driver learns how many trees a shard has, and a machine what there is of earlier runs."""

    def report(self, shard: int, trees: int) -> None: ...

    def files(self, shard: int) -> dict[str, bytes]: ...


class DriverBoard:
    """The board on the driver's machine."""

    def __init__(self, output: Path):
        self._output, self._trees = output, {}

    def report(self, shard: int, trees: int) -> None:
        self._trees[shard] = trees

    def files(self, shard: int) -> dict[str, bytes]:
        return files_of(self._output, shard)

    def trees(self) -> dict[int, int]:
        return self._trees


class RemoteBoard:
    """The board as a worker's machine sees it."""

    def __init__(self, actor):
        self._actor = actor

    def report(self, shard: int, trees: int) -> None:
        self._actor.report.remote(shard, trees)

    def files(self, shard: int) -> dict[str, bytes]:
        import ray

        return ray.get(self._actor.files.remote(shard))


# --- the worker -----------------------------------------------------------------------------------------------------


def run_shard(shard: int, run: RayRun, board: Board, resumed: bool) -> ShardResult:
    """Run the worker of a shard to its end, and tell the board how many trees it has.

    A worker that is `resumed` takes up what is there, also when the first was to begin anew.
    """
    start = time.monotonic()
    shared = (run.output / run.marker).exists()
    if not shared and "--fresh" not in run.flags:
        write_files(run.output, board.files(shard), replace=False)
    log = run.output / "logs" / f"shard_{shard}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = [flag for flag in run.flags if not (resumed and flag == "--fresh")]
    flags += ["--shard_id", str(shard), "--num_shards", str(run.num_shards)]
    with log.open("wb") as lines, _started(run, flags, lines) as process:
        for trees in trees_written(run.output, shard):
            board.report(shard, trees)
            try:
                process.wait(POLL)
                break
            except subprocess.TimeoutExpired:
                continue
    files = {} if shared or process.returncode else files_of(run.output, shard)
    return ShardResult(process.returncode, socket.gethostname(), last_line(log), time.monotonic() - start, files)


def _started(run: RayRun, flags: list[str], log: BinaryIO) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", "-c", GUARD, "guard", sys.executable, "-m", "tree.run_pipeline", *flags],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=run.folder,
        env=os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if run.on_cpu else {}),
        start_new_session=True,
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


# --- files ----------------------------------------------------------------------------------------------------------


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
