"""BIRD's `database_description/*.csv` -> what each column means, and what its values stand for.  Knows no SQL.

The published files (https://bird-bench.github.io) are of many hands: UTF-8 with and without byte-order marks, cp1252,
both in one file, UTF-16 with a mark, lists with bullets and line breaks in a cell, names that differ from the
database's in case and spaces.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.files import InputError

COLUMNS = ("original_column_name", "column_name", "column_description", "value_description")


@dataclass(frozen=True)
class Description:
    """`meaning` of a column, "" when it says no more than the name; `values` says what they are. One line each."""

    meaning: str
    values: str


@dataclass(frozen=True)
class Descriptions:
    """Of one database: by (table, column) as the database spells them, and the names found of nothing in it."""

    by_column: dict[tuple[str, str], Description]
    unmatched: tuple[str, ...]


def description_files(folder: Path) -> list[Path]:
    """The files of descriptions in a folder, by name."""
    # what begins with a dot is what macOS leaves in archives
    return sorted(path for path in folder.glob("*.[cC][sS][vV]") if not path.name.startswith("."))


def read_descriptions(folder: Path, tables: Mapping[str, Sequence[str]]) -> Descriptions:
    """The descriptions in a folder of CSV files, one per table; `tables` are the database's, with their columns.

    Unmatched are `table.csv` for a file and `table.column` for a row. A missing folder describes nothing. Raises
    InputError for a file that is no CSV of descriptions.
    """
    by_column: dict[tuple[str, str], Description] = {}
    unmatched = []
    for path in description_files(folder):
        table = _find(path.stem, tables)
        if table is None:
            unmatched.append(path.name)
            continue
        for name, *cells in _rows(path):
            column = _find(name, tables[table])
            if column is None:
                unmatched.append(f"{table}.{_one_line(name, ' ')}")
            elif (table, column) not in by_column:
                by_column[table, column] = _description(column, *cells)
    return Descriptions(by_column, tuple(unmatched))


def _find(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is meant: the same, or else the only one with the same letters and digits."""
    folded = [known for known in names if " ".join(known.split()).lower() == " ".join(name.split()).lower()]
    alike = folded or [known for known in names if _letters(known) == _letters(name) != ""]
    if name in alike:
        return name
    return alike[0] if len(alike) == 1 else None


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


# --- the file -------------------------------------------------------------------------------------------------------

# cp1252 that was read as latin-1 on its way: U+0095 is meant as a bullet
UNSEEN = "\ufeff\u200b\u200c\u200d\u2060"  # byte-order marks, and spaces without width that editors leave beside them
MISREAD_MARK = "\ufeff".encode().decode("cp1252")  # a mark that was read as cp1252 and saved as UTF-8
CONTROLS = {code: bytes([code]).decode("cp1252", "replace") for code in range(0x80, 0xA0)}


def _rows(path: Path) -> Iterator[list[str]]:
    """The cells of COLUMNS of each row that names a column."""
    reader = csv.reader(io.StringIO(_text(path), newline=""))
    try:
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num} cannot be read as CSV ({error}); save it as CSV") from None
    header = ["_".join(name.strip(UNSEEN).lower().replace("_", " ").split()) for name in rows[0]] if rows else []
    if COLUMNS[0] not in header:
        raise InputError(f"{path}: no column 'original_column_name'; take the file of BIRD, or remove it")
    places = [header.index(name) if name in header else None for name in COLUMNS]
    for row in rows[1:]:
        cells = ["" if place is None or place >= len(row) else row[place] for place in places]
        if cells[0].strip():
            yield cells


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions, or remove it") from None
    text = _decoded(data)
    if "\0" in text:
        raise InputError(f"{path}: not a text file; save it as CSV in UTF-8, or remove it")
    return text.lstrip(UNSEEN).removeprefix(MISREAD_MARK).lstrip(UNSEEN).translate(CONTROLS)


def _decoded(data: bytes) -> str:
    """Text as its first bytes say, else UTF-8, with the bytes that are not taken for cp1252."""
    # UTF-32 first: its little-endian mark begins with that of UTF-16
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return data.decode("utf-32", "replace")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8", CP1252)


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    """What takes the place of bytes that cannot be decoded, and where to go on."""
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


CP1252 = "resqlver-cp1252"
codecs.register_error(CP1252, _as_cp1252)


# --- the cells ------------------------------------------------------------------------------------------------------

# a label adds nothing, but parts what stands before it from what follows
LABEL = re.compile(r"\bcommon ?sense (?:evidence|reasoning|knowledge)[^\S\n]*(?:[:：]|$)", re.I | re.MULTILINE)
BULLET = re.compile("[•·●▪■◦‣∙○□➢\uf0b7\ufffd]\\s*")
FILLER = re.compile(r"(?:not (?:quite )?useful|unuseful|useless)\W*", re.I)


def _description(column: str, name: str, meaning: str, values: str) -> Description:
    name, meaning = _one_line(name, " "), _one_line(meaning, " ")
    values = _one_line(values, "; ")
    return Description(_meaning(column, name, meaning), "" if FILLER.fullmatch(values) else values)


def _meaning(column: str, name: str, meaning: str) -> str:
    said = "" if _letters(meaning) in ("", _letters(column)) else meaning
    known = _letters(f"{column} {said}")
    # the longer name is of use where it spells out what neither the column's own nor the description does
    is_new = any(_letters(word) not in known for word in name.split())
    return ": ".join(filter(None, [name if is_new else "", said]))


def _one_line(cell: str, joint: str) -> str:
    """A cell without bullets, labels and line breaks; `joint` goes between lines, "; " between bulleted ones."""
    lines = LABEL.sub("\n", cell).splitlines()
    text = ""
    for line in (" ".join(line.split()) for line in lines):
        bullet = BULLET.match(line)
        item = line[bullet.end() :] if bullet else line
        if text and item:
            text += " " if text[-1] in ".,:;!?：" else "; " if bullet else joint
        text += item
    return text.rstrip(" ,;")


# --- codes ----------------------------------------------------------------------------------------------------------

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


# A number counts as written, but not within a longer one, nor as an end of a range or of a comparison, or a percentage.
NOT_BEFORE_NUMBER = r"(?<![\w.,+\-–<>≤≥])(?<![<>≤≥] )(?<![<>]=)(?<![<>]= )"
NOT_AFTER_NUMBER = r"(?!\w|[.,–-]\d|\s*[<>≤≥%])"
# A sign counts in quotes or brackets, or at the start of an explanation ("+: positive").
OPENING_QUOTE, CLOSING_QUOTE = r"(?<=[\"'“‘(\[])", r"(?=[\"'”’)\]])"
EXPLANATION_START, EXPLAINED = r"(?:^|(?<=; ))", r"(?=\s*[:：=])"


def explains_codes(text: str, stored: Sequence[object]) -> bool:
    """Whether a value description explains stored values: whether one of them is in it as a whole token."""
    lowered = text.lower()
    return any(code.lower() in lowered and _occurrence(code).search(text) for code in map(_code, stored) if code)


def _code(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None or isinstance(value, bytes) else str(value).strip()


def _occurrence(code: str) -> re.Pattern:
    """What finds a code as a whole token: a number, a sign, a letter in its own case, a word in any."""
    literal = re.escape(code)
    if NUMBER.fullmatch(code):
        return re.compile(f"{NOT_BEFORE_NUMBER}{literal}{NOT_AFTER_NUMBER}")
    if not any(map(str.isalnum, code)):
        return re.compile(f"{OPENING_QUOTE}{literal}{CLOSING_QUOTE}|{EXPLANATION_START}{literal}{EXPLAINED}")
    return re.compile(rf"(?<!\w){literal}(?!\w)", re.I if len(code) > 1 else 0)
