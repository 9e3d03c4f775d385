"""Files of rows: a JSON list of objects, or JSON Lines; read one at a time, with the columns that are expected."""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, TextIO

from common.files import InputError, reading, replacing, write_json

CHUNK = 1 << 20  # characters that are read at least
LONGEST_LITERAL = 16  # characters, a generous bound: -Infinity, \ud83d\ude00
WHITE_SPACE = re.compile(r"[ \t\r\n]*")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON may write them; UTF-8 has none

Hook = Callable[[list[tuple[str, Any]]], Any]  # `object_pairs_hook` of `json.loads`


# --- values -----------------------------------------------------------------------------------------------------------


class HalfSurrogate(ValueError):
    """A text holds half of a surrogate pair, which UTF-8 cannot hold; the message says where."""


class _Values:
    """The JSON values that stand one after the other in a text file, read as `json` does; memory holds about one.

    What is no finite number (NaN, Infinity, 1e999) is None: pandas writes NaN where nothing is.
    """

    def __init__(self, file: TextIO, hook: Hook | None):
        self._file, self._text, self._place = file, "", 0
        self._decode = json.JSONDecoder(
            object_pairs_hook=hook, parse_constant=lambda _: None, parse_float=_finite
        ).raw_decode

    def peek(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            self._place = WHITE_SPACE.match(self._text, self._place).end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read_on():
                return ""

    def take(self, characters: str) -> str:
        """Step over the next character, one of these. Raises JSONDecodeError for another."""
        found = self.peek()
        if not found or found not in characters:
            expected = " or ".join(map(repr, characters))
            raise json.JSONDecodeError(f"Expecting {expected}", self._text, self._place)
        self._place += 1
        return found

    def value(self) -> Any:
        """The next value. Raises JSONDecodeError, HalfSurrogate, and ValueError for a number of thousands of digits."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._place)
            except json.JSONDecodeError as error:
                # is it broken, or only not read to its end?
                if (error.msg.startswith("Unterminated") or self._may_go_on(error.pos)) and self._read_on():
                    continue
                raise
            if self._may_go_on(end) and self._read_on():
                continue  # as 1 may be the beginning of 1.5
            if SURROGATE.search(self._text, self._place, end):
                _check_text(value)
            self._place = end
            return value

    def _may_go_on(self, place: int) -> bool:
        """Whether what is read ends so soon after a place that what stands there may not be whole."""
        return place > len(self._text) - LONGEST_LITERAL

    def _read_on(self) -> bool:
        """Take in as much again as is left in memory; whether there was more."""
        more = self._file.read(max(CHUNK, len(self._text) - self._place))
        if more:
            self._text, self._place = self._text[self._place :] + more, 0
        return bool(more)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _check_text(value: Any) -> None:
    """Raise HalfSurrogate when there is one in a JSON value."""
    for name, part in value.items() if isinstance(value, dict) else [("", value)]:
        try:
            json.dumps([name, part], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            where, half = (
                text.encode("ascii", "backslashreplace").decode() for text in (name, error.object[error.start])
            )
            raise HalfSurrogate(f"'{where}' holds half of a surrogate pair, {half}") from None


# --- items ------------------------------------------------------------------------------------------------------------


def iterate_json(path: str | os.PathLike, fix: str = "check the path", hook: Hook | None = None) -> Iterator[Any]:
    """The items of a JSON list, or the objects of JSON Lines, in a UTF-8 file (with or without byte-order mark).

    Memory holds one item. A file with a single object is JSON Lines with one. What is no finite number is None.
    Raises InputError naming the item (counted from 0); those before a broken place were given.
    """
    number = 0
    with reading(path, fix), open(path, encoding="utf-8-sig", newline="") as file:
        try:
            values = _Values(file, hook)
            if (start := values.peek()) not in ("[", "{"):
                found = repr(start) if start else "nothing"
                raise InputError(f"{path}: expected a JSON list or JSON Lines, found {found}; {fix}")
            for item in _listed(values) if start == "[" else _lines(values):
                yield item
                number += 1
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: broken JSON at row {number} ({error.msg})") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: not UTF-8, in row {number} or after it; save it as UTF-8") from None
        except HalfSurrogate as error:
            raise InputError(f"{path}: row {number}: {error}; write the whole character or none") from None
        except ValueError as error:  # a number of thousands of digits
            raise InputError(f"{path}: row {number}: {error}") from None


def _listed(values: _Values) -> Iterator[Any]:
    values.take("[")
    if values.peek() == "]":
        values.take("]")
    else:
        yield values.value()
        while values.take(",]") == ",":
            yield values.value()
    if values.peek():
        raise json.JSONDecodeError("Extra data", "", 0)


def _lines(values: _Values) -> Iterator[Any]:
    while values.peek():
        yield values.value()


def are_lines(path: str | os.PathLike) -> bool:
    """Whether a file that can be read holds JSON Lines."""
    with open(path, encoding="utf-8-sig") as file:
        return _Values(file, None).peek() == "{"


def write_rows(path: str | os.PathLike, rows: Iterable[dict], lines: bool) -> None:
    """Replace `path` with rows as an indented JSON list, or as JSON `lines`; whole or not at all."""
    if not lines:
        write_json(path, list(rows))
        return
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


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
