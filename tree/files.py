"""Whole files or none: reading with clear errors, writing by replacement, and the one-line error of every script.

Standard library only.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any


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
    try:
        content = json.loads(Path(path).read_bytes().decode("utf-8-sig"), object_pairs_hook=object_pairs_hook)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {fix}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {fix}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON at line {error.lineno} column {error.colno} ({error.msg})") from None
    except RecursionError:
        raise InputError(f"{path}: JSON nested too deeply") from None
    if not isinstance(content, kind):
        names = {list: "a JSON list", dict: "a JSON object", (list, dict): "a JSON list or object"}
        raise InputError(f"{path}: expected {names[kind]}, found {type(content).__name__}")
    return content


def read_rows(path: str | os.PathLike, columns: dict[str, type], fix: str = "check the path") -> list[dict]:
    """A non-empty JSON list of objects, each with the named columns of the named types.

    Raises InputError naming the first row (counted from 0) that does not fit.
    """
    rows = read_json(path, list, fix)
    if not rows:
        raise InputError(f"{path}: an empty list; {fix}")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {number} is {type(row).__name__}, expected an object")
        for column, kind in columns.items():
            if column not in row:
                raise InputError(
                    f"{path}: row {number} has no '{column}' (it has: {', '.join(sorted(row)) or 'nothing'})"
                )
            if not isinstance(row[column], kind) or isinstance(row[column], bool):
                raise InputError(
                    f"{path}: row {number}: '{column}' is {type(row[column]).__name__}, expected {kind.__name__}"
                )
    return rows


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[str]]:
    """A text file to write; it takes the place of `path` only when the block ends well (temp + fsync + rename)."""
    target = Path(path).resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a result is as readable as any file of this user
        os.chmod(temporary, target.stat().st_mode if target.exists() else 0o666 & ~_umask())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last over a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Replace `path` with `content` as indented JSON in UTF-8, whole or not at all."""
    with replacing(path) as file:
        json.dump(content, file, ensure_ascii=False, indent=2, allow_nan=False)
        file.write("\n")


def write_json_list(path: str | os.PathLike, items: Iterable[Any]) -> int:
    """Replace `path` with a JSON list written item by item (one per line, so memory stays flat); returns the count."""
    count = 0
    with replacing(path) as file:
        file.write("[")
        for item in items:
            file.write(",\n" if count else "\n")
            file.write(json.dumps(item, ensure_ascii=False, allow_nan=False))
            count += 1
        file.write("\n]\n")
    return count
