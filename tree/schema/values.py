"""Values of a database that a question speaks of: an index of its cells, and the cells that match a text.

After CodeS (Li et al. 2024, arXiv 2402.16347): a full-text search (BM25) finds a few hundred cells, and a comparison
word by word picks among them. Nothing but the database and the text has a say.
"""

import contextlib
import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rapidfuzz import fuzz, process

from common.files import InputError
from tree.schema.read import quoted
from tree.sql.cache import building, fingerprint
from tree.sql.database_file import connect
from tree.sql.table_info import ColumnInfo, Problems, list_tables, reason
from tree.sql.tokens import delimited, literal

FORMAT = 2  # of the index; one of another format is built anew
MAX_DISTINCT = 100_000  # cells of one column
MAX_LENGTH = 80  # characters of a cell; a column whose texts are longer than that on average is free text
SAMPLED_ROWS = 1_000  # that tell what a column holds

COARSE = 200  # cells that the full-text search hands on
MAX_WORDS = 128  # of a text that are searched for
MAX_MATCHES = 8
MAX_PER_COLUMN = 2
ALIKE = 85  # percent, of two words
ALIKE_LITERAL = 90  # of a cell and what the text has in quotes


@dataclass(frozen=True)
class Match:
    """A cell of a table's column, as it is stored."""

    table: str
    column: str
    value: str


# --- the index ------------------------------------------------------------------------------------------------------

TABLES = """
CREATE TABLE place (id INTEGER PRIMARY KEY, table_name TEXT, column_name TEXT);
CREATE TABLE name (word TEXT PRIMARY KEY);
CREATE TABLE unread (table_name TEXT, column_name TEXT, why TEXT);
CREATE VIRTUAL TABLE cell USING fts5 (value, place UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2');
"""
MEAN_LENGTH = f"""
SELECT avg(CASE typeof(cell) WHEN 'text' THEN length(cell) END)
FROM (SELECT {{column}} COLLATE BINARY AS cell FROM {{table}} NOT INDEXED LIMIT {SAMPLED_ROWS})
"""
NUMBERS = re.compile("INT|REAL|FLOA|DOUB|NUM|DEC", re.I)  # declared types
# cells that a question may speak of: short text with a letter, no time stamps, links or hashes. They are compared by
# their bytes and without an index, because this SQLite may lack the collation of the column or of the index
CELLS = f"""
SELECT DISTINCT cell FROM (SELECT {{column}} COLLATE BINARY AS cell FROM {{table}} NOT INDEXED)
WHERE typeof(cell) = 'text' AND length(cell) <= {MAX_LENGTH} AND (cell GLOB '*[A-Za-z]*' OR cell GLOB '*[^ -~]*')
AND cell NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T*' AND cell NOT LIKE '%://%' AND cell NOT LIKE 'www.%'
AND (cell NOT GLOB '*[0-9]*' OR cell GLOB '*[^0-9A-Fa-f-]*' OR length(cell) < 16)
LIMIT {MAX_DISTINCT}
"""


def build_index(database: Path, folder: Path) -> Path:
    """The index of a database's cells in `folder`, built if it is not there yet (one scan for each text column).

    Raises InputError when it cannot be written, the database cannot be read or changes meanwhile, or this SQLite has no
    full-text search. Several processes may build the same index at once; the last one stays.
    """
    known = fingerprint(database)
    place = folder / f"{known}.sqlite"
    if _format(place) == FORMAT:
        return place
    try:
        with building(place) as temporary:
            _write_index(database, temporary)
            if fingerprint(database) != known:
                raise InputError(f"{database}: changed while its values were read; run the same command again")
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"{database}: its values cannot be indexed in {folder} ({error}); check the database and the free space, "
            "or set RESQLVER_CACHE to another folder"
        ) from None
    return place


def _format(place: Path) -> int:
    """The format of an index, 0 when there is none."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(place)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]
    return 0


def unread_columns(index: Path) -> Problems:
    """The columns whose cells an index lacks because they could not be read when it was built."""
    with contextlib.closing(connect(index)) as connection:
        rows = connection.execute("SELECT table_name, column_name, why FROM unread").fetchall()
    return {(table, column): why for table, column, why in rows}


def _write_index(database: Path, target: str) -> None:
    with (
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as index,
        contextlib.closing(connect(database)) as source,
    ):
        index.execute("PRAGMA journal_mode = OFF")  # a torn file is thrown away
        index.execute("PRAGMA synchronous = OFF")
        try:
            index.executescript(TABLES)
        except sqlite3.OperationalError as error:
            if "no such module" not in str(error):
                raise
            raise InputError(
                f"SQLite {sqlite3.sqlite_version} of this Python has no full-text search ({error}); use a Python whose "
                "SQLite has FTS5 (python.org, conda-forge or uv)"
            ) from None
        index.execute("BEGIN")
        tables = [table for table in list_tables(source) if table.kind == "table"]
        columns = [(table.name, column) for table in tables for column in table.readable()]
        source.text_factory = bytes  # cells go into the index byte for byte
        for number, (table, column) in enumerate(sorted(columns, key=lambda place: place[0])):
            try:
                cells = _cells(source, table, column)
            except sqlite3.Error as error:
                index.execute("INSERT INTO unread VALUES (?, ?, ?)", (table, column.name, reason(error)))
                continue
            if cells is not None:
                index.execute("INSERT INTO place VALUES (?, ?, ?)", (number, table, column.name))
                cells = ((cell, number) for (cell,) in cells)
                index.executemany("INSERT INTO cell VALUES (CAST(? AS TEXT), ?)", cells)
        words = {word for table, column in columns for word in _words(f"{table} {column.name}")}
        index.executemany("INSERT INTO name VALUES (?)", ((word,) for word in sorted(words)))
        index.execute("INSERT INTO cell (cell) VALUES ('optimize')")
        index.execute(f"PRAGMA user_version = {FORMAT}")
        index.execute("COMMIT")


def _cells(source: sqlite3.Connection, table: str, column: ColumnInfo) -> list[tuple[bytes]] | None:
    """The cells of a column that a question may speak of; None for a column of numbers or of free text."""
    names = {"table": delimited(table), "column": delimited(column.name)}
    (length,) = source.execute(MEAN_LENGTH.format_map(names)).fetchone()
    # a scan of millions of numbers is spared
    if length > MAX_LENGTH if length is not None else NUMBERS.search(column.kind):
        return None
    return source.execute(CELLS.format_map(names)).fetchall()


# --- the text -------------------------------------------------------------------------------------------------------

WORD = re.compile(r"[^\W_]+")
INSIDE = r"(?<=\w)''?(?=\w)"  # an apostrophe, doubled as SQL wants it or not
IN_QUOTES = re.compile(
    rf"""(?<!\w)'((?:[^'\n]|{INSIDE}){{1,80}})'(?!\w)|"([^"\n]{{1,80}})"|“([^”\n]{{1,80}})”|‘([^’\n]{{1,80}})’"""
)
NATIONALITY = re.compile("(.{3,}?)(?:ian|ean|an|n|ese|ish|i)")  # the country without its last vowels, and an ending
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a about above after all also among an and any are as ask at average avg be been below between both but by
        calculate can code count date describe did different distinct do does down during each every find following for
        from full give had has have he her highest his how id if in into is it its last least less list lowest many max
        maximum me min minimum more most much name names no not number of on one only or order other out over per
        percent percentage please provide refer refers return s same select she show some state such sum t than that
        the their them there these they this those to total type under up use used value values was were what when
        where which who whom whose will with within year years you your""",
    )
)


@dataclass(frozen=True)
class Text:
    """What a cell is compared with.

    `query` is FTS5's, for any of the rest; `phrase` has all words, with spaces around; `words` are those that may name
    a value, without the `common` ones; `codes` are words of two characters in capitals; `literals` what stands in
    quotes, as it is and by its words; `countries` the beginnings of countries whose nationality is named.
    """

    query: str
    phrase: str
    words: tuple[str, ...]
    common: frozenset[str]
    codes: frozenset[str]
    literals: tuple[str, ...]
    literal_phrases: tuple[str, ...]
    countries: tuple[str, ...]


def _words(text: str) -> list[str]:
    """Words in lower case without accents, as the index has them but for their endings."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return WORD.findall("".join(character for character in plain if not unicodedata.combining(character)))


def _text(text: str, names: Iterable[str]) -> Text:
    """`names` are the words that tables and columns are named with: a question means those, not a cell."""
    common = STOP_WORDS.union(form for name in names for form in (name, f"{name}s", name.removesuffix("s")))
    words = _words(text)
    written = [word for word in dict.fromkeys(WORD.findall(text)) if not common.issuperset(_words(word))]
    literals = dict.fromkeys(literal for groups in IN_QUOTES.findall(text) for literal in groups if literal)
    nationalities = (NATIONALITY.fullmatch(word.lower()) for word in written if word[0].isupper())
    countries = tuple(dict.fromkeys(nationality[1] for nationality in nationalities if nationality))
    phrases = [" ".join(WORD.findall(literal)) for literal in literals]
    terms = [f'"{term}"' for term in (*written[:MAX_WORDS], *phrases[:MAX_WORDS])]
    terms += [f'"{country}" *' for country in countries[:MAX_WORDS]]
    return Text(
        " OR ".join(terms) or '""',
        f" {' '.join(words)} ",
        tuple(dict.fromkeys(word for word in words if word not in common)),
        common,
        frozenset(word for word in written if len(word) == 2 and word.isupper()),
        tuple(literals),
        tuple(filter(None, dict.fromkeys(" ".join(_words(literal)) for literal in literals))),
        countries,
    )


# --- the comparison -------------------------------------------------------------------------------------------------

# the cells are read only once the best are known
SEARCH = """
SELECT table_name, column_name, value
FROM (SELECT rowid AS number FROM cell WHERE cell MATCH ? ORDER BY bm25(cell), rowid LIMIT ?)
CROSS JOIN cell ON cell.rowid = number JOIN place ON id = place
"""
UNSHOWN = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # line breaks, and bytes that are not UTF-8
IN_LITERAL, AS_PHRASE, LIKE_LITERAL, BY_WORDS = range(4)  # the kinds of evidence for a cell, the surest first


@dataclass(frozen=True)
class Found:
    """A cell that the text speaks of, the kind of evidence, the words that say so; whether its column is named too."""

    match: Match
    kind: int
    said: frozenset[str]
    is_named: bool

    def rank(self) -> tuple:
        match = self.match
        return self.kind, -sum(map(len, self.said)), not self.is_named, match.table, match.column, match.value

    def is_weaker(self, other: "Found") -> bool:
        """Whether `other` accounts for the words that this one rests on: "Hall" beside "Smith Hall"."""
        return self.said < other.said or (self.said == other.said and self.kind > other.kind)


def matching_values(index: Path, text: str) -> list[Match]:
    """The cells that a text speaks of, the surest first: at most MAX_MATCHES, MAX_PER_COLUMN of a column.

    Not found: abbreviations ("LA"), nationalities unlike their country ("Dutch"), typing errors in a value's only
    word, and values in a script without spaces that the text does not set apart.
    """
    with contextlib.closing(connect(index)) as connection:
        asked = _text(text, [name for (name,) in connection.execute("SELECT word FROM name")])
        rows = connection.execute(SEARCH, (asked.query, COARSE)).fetchall()
    found = (_found(Match(*row), asked) for row in rows if not UNSHOWN.search(row[-1]))
    return _picked(sorted(filter(None, found), key=Found.rank))


def _picked(ranked: list[Found]) -> list[Match]:
    picked: list[Found] = []
    columns = Counter()
    for found in ranked:
        column = found.match.table, found.match.column
        is_weaker = found.kind != IN_LITERAL and any(map(found.is_weaker, picked))
        if columns[column] < MAX_PER_COLUMN and not is_weaker:
            columns[column] += 1
            picked.append(found)
    return [found.match for found in picked[:MAX_MATCHES]]


def _found(cell: Match, text: Text) -> Found | None:
    kind, said = _evidence(cell.value, text)
    return Found(cell, kind, frozenset(said), f" {' '.join(_words(cell.column))} " in text.phrase) if said else None


def _evidence(cell: str, text: Text) -> tuple[int, list[str]]:
    """The kind of evidence for a cell, and the words of the text that say so: none when it does not speak of it."""
    words = _words(cell)
    phrase = " ".join(words)
    if cell in text.literals:
        return IN_LITERAL, words
    if len(cell) <= 2:
        return AS_PHRASE, words if cell in text.codes else []
    if phrase in text.literal_phrases:
        return IN_LITERAL, words
    if text.common.issuperset(words):
        return BY_WORDS, []
    if f" {phrase} " in text.phrase:
        return AS_PHRASE, words
    if alike := _alike(phrase, text.literal_phrases, ALIKE_LITERAL):
        return LIKE_LITERAL, alike.split()
    said = [_said(word, text) for word in words]
    return BY_WORDS, said if all(said) else []


def _said(word: str, text: Text) -> str | None:
    """The word of the text that is this one, or nearly, or its nationality."""
    if f" {word} " in text.phrase:
        return word
    if (country := word.rstrip("aeiouy")) in text.countries:
        return country
    return _alike(word, text.words, ALIKE) if len(word) > 3 and word.isalpha() else None


def _alike(text: str, others: Iterable[str], percent: int) -> str | None:
    best = process.extractOne(text, others, scorer=fuzz.ratio, score_cutoff=percent)
    return best[0] if best else None


def value_lines(matches: Iterable[Match]) -> list[str]:
    """`table.column = 'value'` for each match, one line each, names and value as SQLite needs them."""
    return [f"{quoted(match.table)}.{quoted(match.column)} = {literal(match.value)}" for match in matches]
