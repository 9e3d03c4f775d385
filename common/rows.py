"""Files of rows: a JSON list of objects, or JSON Lines; read one at a time, with the columns that are expected.

Lists with one item per line, as this project writes them, and JSON Lines are read line by line, so that memory holds
one item. A list, or a single object, in any other layout is loaded whole.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from common.files import InputError, reading

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON may write them; UTF-8 has none

Hook = Callable[[list[tuple[str, Any]]], Any]  # `object_pairs_hook` of `json.loads`


# --- items ------------------------------------------------------------------------------------------------------------


class _OtherLayout(Exception):
    """The lines of a file do not hold one item each."""


class _HalfSurrogate(Exception):
    """A text holds half of a surrogate pair, which UTF-8 cannot hold; the message says where."""


def iterate_json(path: str | os.PathLike, fix: str = "check the path", hook: Hook | None = None) -> Iterator[Any]:
    """The items of a JSON list, or the objects of JSON Lines, in a UTF-8 file (with or without byte-order mark).

    A file with a single object is JSON Lines with one. What is no finite number (NaN, Infinity, 1e999) is None: pandas
    writes NaN where nothing is. Raises InputError naming the line or the row (counted from 0); rows before a broken
    place may have been given.
    """
    decode = json.JSONDecoder(object_pairs_hook=hook, parse_constant=lambda _: None, parse_float=_finite).decode
    number = 0
    with reading(path, fix):
        try:
            for item, has_surrogates in _items(Path(path), fix, decode):
                if has_surrogates:
                    _check_encodable(item)
                yield item
                number += 1
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: broken JSON at line {error.lineno} column {error.colno} ({error.msg})") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: not UTF-8, in row {number} or after it; save it as UTF-8") from None
        except _HalfSurrogate as error:
            raise InputError(f"{path}: row {number}: {error}; write the whole character or none") from None
        except ValueError as error:  # a number of thousands of digits
            raise InputError(f"{path}: row {number} or after it: {error}") from None


def _items(path: Path, fix: str, decode: Callable[[str], Any]) -> Iterator[tuple[Any, bool]]:
    """The items of a file, each with whether it may hold surrogates."""
    given = 0
    with path.open(encoding="utf-8-sig") as file:
        lines = filter(None, map(str.strip, file))
        first = next(lines, "")
        try:
            for text in _one_per_line(first, lines):
                yield decode(text), bool(SURROGATE.search(text))
                given += 1
            return
        except _OtherLayout:
            pass
        except json.JSONDecodeError as error:
            if given and first != "[":
                raise InputError(f"{path}: broken JSON at row {given} ({error.msg})") from None
    if not first.startswith(("[", "{")):
        found = repr(first[0]) if first else "nothing"
        raise InputError(f"{path}: expected a JSON list or JSON Lines, found {found}; {fix}")
    text = path.read_text(encoding="utf-8-sig")
    content, has_surrogates = decode(text), bool(SURROGATE.search(text))
    for item in content[given:] if first.startswith("[") else [content]:
        yield item, has_surrogates


def _one_per_line(first: str, lines: Iterator[str]) -> Iterator[str]:
    """The items of JSON Lines, or of a list that has a line for each, as texts. Raises _OtherLayout."""
    if first.startswith("{"):
        yield first
        yield from lines
        return
    if first == "[":
        for line in lines:
            yield line.removesuffix(",")
            if not line.endswith(","):
                break
        if "".join(lines) == "]":
            return
    raise _OtherLayout


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _check_encodable(item: Any) -> None:
    """Raise _HalfSurrogate when there is one in a JSON value."""
    for name, part in item.items() if isinstance(item, dict) else [("", item)]:
        try:
            json.dumps([name, part], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise _HalfSurrogate(f"{ascii(name)} holds half of a surrogate pair, {half}") from None


# --- columns ----------------------------------------------------------------------------------------------------------

# a type for a column that must be there, (type, default) for one that may be missing or null
Kind = type | UnionType
Columns = Mapping[str, Kind | tuple[Kind, Any]]


def fit_row(path: str | os.PathLike, number: int, row: Any, columns: Columns) -> dict:
    """The row with the named columns fitted to their types: defaults where they are missing or null, 3 for 3.0.

    Raises InputError when `row` is no object, lacks a column, or has another type in it; true is no number.
    """
    if not isinstance(row, dict):
        raise InputError(f"{path}: row {number} is {_name(row)}, expected an object")
    fitted = dict(row)
    for column, wanted in columns.items():
        kind, *default = wanted if isinstance(wanted, tuple) else (wanted,)
        if default and row.get(column) is None:
            fitted[column] = default[0]
        elif column not in row:
            raise InputError(f"{path}: row {number} has no '{column}' (it has: {', '.join(sorted(row)) or 'nothing'})")
        else:
            fitted[column] = _fitted(f"{path}: row {number}: '{column}'", row[column], kind)
    return fitted


def _fitted(where: str, value: Any, kind: Kind) -> Any:
    if isinstance(value, float) and value.is_integer() and isinstance(0, kind):
        value = int(value)  # pandas makes floats of whole numbers where one is missing
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = kind.__name__ if isinstance(kind, type) else kind
        raise InputError(f"{where} is {_name(value)}, expected {expected}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"{where} takes more than 64 bits")
    return value


def _name(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def iterate_rows(path: str | os.PathLike, columns: Columns, fix: str = "check the path") -> Iterator[dict]:
    """The rows of a file, each fitted to the columns, one at a time; an empty list gives none.

    Raises InputError as `iterate_json` and `fit_row` do, naming the row (counted from 0).
    """
    for number, row in enumerate(iterate_json(path, fix)):
        yield fit_row(path, number, row, columns)


def read_rows(path: str | os.PathLike, columns: Columns, fix: str = "check the path") -> list[dict]:
    """All rows of a file, of which there must be one. Raises InputError as `iterate_rows` does."""
    rows = list(iterate_rows(path, columns, fix))
    if not rows:
        raise InputError(f"{path}: an empty list; {fix}")
    return rows
