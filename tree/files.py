"""Whole files or none: reading with clear errors, writing by replacement, and the one-line error of every script.

Standard library only, but for reading a list item by item.
"""

import contextlib
import errno
import glob
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import IO, Any, BinaryIO

MAX_NESTING = 100  # levels of a file that is read item by item
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # why a file is not written to its end


class InputError(Exception):
    """The user's input or settings are wrong; the message names the file, the row and the fix in one line."""


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's main: InputError becomes one `error:` line and exit code 2, Ctrl-C exit code 130."""
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


@contextlib.contextmanager
def _reading(path: str | os.PathLike, fix: str) -> Iterator[None]:
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


def read_json(
    path: str | os.PathLike,
    kind: type | tuple[type, ...],
    fix: str = "check the path",
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parsed JSON of a UTF-8 file (with or without byte-order mark), whose top level must be `kind` (list or dict).

    `object_pairs_hook` is that of `json.loads`.
    Raises InputError for a missing, unreadable, broken or empty file, or another top level.
    """
    with _reading(path, fix):
        try:
            content = json.loads(Path(path).read_bytes().decode("utf-8-sig"), object_pairs_hook=object_pairs_hook)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: broken JSON at line {error.lineno} column {error.colno} ({error.msg})") from None
    if not isinstance(content, kind):
        names = {list: "a JSON list", dict: "a JSON object", (list, dict): "a JSON list or object"}
        raise InputError(f"{path}: expected {names[kind]}, found {type(content).__name__}")
    return content


def iterate_json_list(path: str | os.PathLike, fix: str = "check the path", single: bool = False) -> Iterator[Any]:
    """The items of a JSON list in a UTF-8 file (with or without byte-order mark), one at a time: memory holds one item.

    With `single`, a file that holds one object instead of a list gives that object. Whole numbers that take more than
    64 bits are refused, half of a surrogate pair becomes a question mark.
    Raises InputError as `read_json` does, naming the item (counted from 0); those before a broken place were given.
    """
    import ijson

    number = 0
    with _reading(path, fix), open(path, "rb") as file:
        start = _skip_to_start(file)
        if start != b"[" and not (single and start == b"{"):
            found = {b"{": "an object", b"": "nothing"}.get(start, repr(start.decode("latin-1")))
            raise InputError(f"{path}: expected a JSON list, found {found}; {fix}")
        try:
            for item in _items(ijson.basic_parse(file, use_float=True), bottom=1 if start == b"[" else 0):
                yield item
                number += 1
        except ijson.JSONError as error:
            reason = str(error).split("\\n")[0].splitlines()[0].removeprefix("b'").strip()
            raise InputError(f"{path}: broken JSON at row {number} ({reason})") from None


def _items(events: Iterable[tuple[str, Any]], bottom: int) -> Iterator[Any]:
    """The values that stand `bottom` levels deep, from the events of ijson. Raises RecursionError as `json` does."""
    from ijson import ObjectBuilder

    builder, depth = ObjectBuilder(), 0
    for event, value in events:
        depth -= event in ("end_map", "end_array")
        if depth >= bottom:
            builder.event(event, value)
        if event in ("start_map", "start_array"):
            depth += 1
            if depth > MAX_NESTING:
                raise RecursionError
        elif depth == bottom:
            yield builder.value
            builder = ObjectBuilder()


def _skip_to_start(file: BinaryIO) -> bytes:
    """Move behind byte-order mark and white space; the byte that stands there, b"" at the end."""
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
    while (byte := file.read(1)) and byte in b" \t\r\n":
        pass
    file.seek(-len(byte), os.SEEK_CUR)
    return byte


Columns = dict[str, type | UnionType]


def check_row(path: str | os.PathLike, number: int, row: Any, columns: Columns) -> None:
    """Raise InputError unless `row` is an object with the named columns of the named types."""
    if not isinstance(row, dict):
        raise InputError(f"{path}: row {number} is {type(row).__name__}, expected an object")
    for column, kind in columns.items():
        if column not in row:
            raise InputError(f"{path}: row {number} has no '{column}' (it has: {', '.join(sorted(row)) or 'nothing'})")
        if not isinstance(row[column], kind) or isinstance(row[column], bool):
            expected = kind.__name__ if isinstance(kind, type) else kind
            raise InputError(f"{path}: row {number}: '{column}' is {type(row[column]).__name__}, expected {expected}")


def read_rows(path: str | os.PathLike, columns: Columns, fix: str = "check the path") -> list[dict]:
    """A non-empty JSON list of objects, each with the named columns of the named types.

    Raises InputError naming the first row (counted from 0) that does not fit.
    """
    rows = read_json(path, list, fix)
    if not rows:
        raise InputError(f"{path}: an empty list; {fix}")
    for number, row in enumerate(rows):
        check_row(path, number, row, columns)
    return rows


def iterate_rows(path: str | os.PathLike, columns: Columns, fix: str = "check the path") -> Iterator[dict]:
    """The rows of a file as `read_rows` gives them, one at a time; an empty list gives none."""
    for number, row in enumerate(iterate_json_list(path, fix)):
        check_row(path, number, row, columns)
        yield row


@contextlib.contextmanager
def replacing_together(*paths: str | os.PathLike, binary: bool = False) -> Iterator[list[IO]]:
    """Text (or binary) files to write, which take the places of `paths` when the block ends well and all are on disk.

    Raises InputError when they cannot be written, for example on a full disk; what was at `paths` is then untouched.
    """
    targets = [Path(path).resolve() for path in paths]
    temporaries: list[str] = []
    try:
        with contextlib.ExitStack() as stack:
            files = []
            for path, target in zip(paths, targets, strict=True):
                handle, temporary = _temporary_beside(path, target)
                temporaries.append(temporary)
                how = {"mode": "wb"} if binary else {"mode": "w", "encoding": "utf-8", "newline": "\n"}
                files.append(stack.enter_context(os.fdopen(handle, **how)))
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        for temporary, target in zip(temporaries, targets, strict=True):
            # mkstemp makes private files; a result is as readable as any file of this user
            os.chmod(temporary, target.stat().st_mode if target.exists() else 0o666 & ~_umask())
            os.replace(temporary, target)
        for folder in {target.parent for target in targets}:
            sync_file(folder)
    except BaseException as error:
        for temporary in temporaries:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            names = ", ".join(map(str, paths))
            raise InputError(f"{names}: cannot be written ({error.strerror}); make room and try again") from None
        raise


def remove_leftovers(*paths: str | os.PathLike) -> None:
    """Delete what processes left beside `paths` that were killed while they replaced them.

    Nobody else may be writing them.
    """
    for target in (Path(path).resolve() for path in paths):
        for temporary in target.parent.glob(glob.escape(f".{target.name}.") + "*.tmp"):
            temporary.unlink()


def _temporary_beside(path: str | os.PathLike, target: Path) -> tuple[int, str]:
    """Handle and name of a new file that can be renamed to `target`. Raises InputError."""
    if target.is_dir():
        raise InputError(f"{path}: cannot be written (a folder of that name is in the way)")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def check_writable(*paths: str | os.PathLike) -> None:
    """Raise InputError for a file that could not be written, before the work whose result it is to hold."""
    for path in paths:
        handle, temporary = _temporary_beside(path, Path(path).resolve())
        os.close(handle)
        os.unlink(temporary)


@contextlib.contextmanager
def replacing(path: str | os.PathLike, binary: bool = False) -> Iterator[IO]:
    """A file to write; it takes the place of `path` only when the block ends well (temp + fsync + rename)."""
    with replacing_together(path, binary=binary) as (file,):
        yield file


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
