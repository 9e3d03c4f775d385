"""Whole files or none: reading with clear errors, writing by replacement, and the one-line error of every script."""

import contextlib
import errno
import glob
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from common.progress import bars_as_lines

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # why a file is not written to its end
# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md, with the names that it had before
LFS_POINTERS = tuple(
    b"version " + address for address in (b"https://git-lfs.", b"https://hawser.github.com/", b"http://git-media.io/")
)


class InputError(Exception):
    """The user's input or settings are wrong; the message names the file, the row and the fix in one line."""


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's main: InputError becomes one `error:` line and exit code 2, Ctrl-C exit code 130."""
    with bars_as_lines():
        try:
            code = main()
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 130
    sys.stdout.flush()
    sys.exit(code)


# --- reading ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(path: str | os.PathLike, fix: str) -> Iterator[None]:
    """What can go wrong with reading `path` becomes an InputError."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {fix}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {fix}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except RecursionError:
        raise InputError(f"{path}: JSON nested too deeply") from None


def read_json(path: str | os.PathLike, kind: type, fix: str = "check the path") -> Any:
    """Parsed JSON of a UTF-8 file (with or without byte-order mark), whose top level must be `kind` (list or dict).

    Raises InputError for a missing, unreadable, broken or empty file, or another top level.
    """
    with reading(path, fix):
        try:
            content = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: broken JSON at line {error.lineno} column {error.colno} ({error.msg})") from None
    if not isinstance(content, kind):
        names = {list: "a JSON list", dict: "a JSON object"}
        raise InputError(f"{path}: expected {names.get(kind, kind.__name__)}, found {type(content).__name__}")
    return content


def refuse_lfs_pointer(path: Path) -> None:
    """Raise InputError when a file is only the pointer that Git LFS leaves where it has not fetched the file."""
    with path.open("rb") as file:
        if file.read(64).startswith(LFS_POINTERS):
            raise InputError(
                f"{path}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull` in {path.parent}"
            )


# --- writing ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing_together(*paths: str | os.PathLike, binary: bool = False) -> Iterator[list[IO]]:
    """Text (or binary) files to write, which take the places of `paths` when the block ends well and all are on disk.

    Raises InputError when they cannot be written, for example on a full disk; what was at `paths` is then untouched.
    """
    try:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(_temporary_beside(path, binary)) for path in paths]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
            for path, file in zip(paths, files, strict=True):
                _rename(Path(file.name), Path(path).resolve())
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        names = ", ".join(map(str, paths))
        raise InputError(f"{names}: cannot be written ({error.strerror}); make room and try again") from None


@contextlib.contextmanager
def replacing(path: str | os.PathLike, binary: bool = False) -> Iterator[IO]:
    """A file to write; it takes the place of `path` only when the block ends well (temp + fsync + rename)."""
    with replacing_together(path, binary=binary) as (file,):
        yield file


@contextlib.contextmanager
def _temporary_beside(path: str | os.PathLike, binary: bool) -> Iterator[IO]:
    """An open file that can be renamed to `path`; it is deleted at the end unless it was. Raises InputError."""
    target = Path(path).resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    how = {"mode": "xb"} if binary else {"mode": "x", "encoding": "utf-8", "newline": "\n"}
    try:
        if target.is_dir():
            raise InputError(f"{path}: cannot be written (a folder of that name is in the way)")
        target.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open(**how)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with file:
            yield file
    finally:
        temporary.unlink(missing_ok=True)


def _rename(temporary: Path, target: Path) -> None:
    if target.exists():
        shutil.copymode(target, temporary)
    temporary.replace(target)
    sync_file(target.parent)


def check_writable(*paths: str | os.PathLike) -> None:
    """Raise InputError for a file that could not be written, before the work whose result it is to hold."""
    for path in paths:
        with _temporary_beside(path, binary=True):
            pass


def remove_leftovers(*paths: str | os.PathLike) -> None:
    """Delete what processes left beside `paths` that were killed while they replaced them.

    Nobody else may be writing them.
    """
    for target in (Path(path).resolve() for path in paths):
        for temporary in target.parent.glob(glob.escape(f".{target.name}.") + "*.tmp"):
            temporary.unlink()


def sync_file(path: Path) -> None:
    """Make what was written to a file, or the names in a folder, last over a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Replace `path` with `content` as indented JSON in UTF-8, whole or not at all."""
    with replacing(path) as file:
        dump_json(file, content)


def dump_json(file: IO[str], content: Any) -> None:
    """Write `content` as indented JSON into an open file."""
    json.dump(content, file, ensure_ascii=False, indent=2, allow_nan=False)
    file.write("\n")


class JsonList:
    """A JSON list that is written item by item into an open file (one per line, so memory stays flat)."""

    def __init__(self, file: IO[str]):
        self._file = file
        self.count = 0
        file.write("[")

    def add(self, item: Any) -> None:
        self._file.write(",\n" if self.count else "\n")
        self._file.write(json.dumps(item, ensure_ascii=False, allow_nan=False))
        self.count += 1

    def end(self) -> None:
        self._file.write("\n]\n")


def write_json_list(path: str | os.PathLike, items: Iterable[Any]) -> int:
    """Replace `path` with a JSON list written item by item; returns the count."""
    with replacing(path) as file:
        rows = JsonList(file)
        for item in items:
            rows.add(item)
        rows.end()
    return rows.count
