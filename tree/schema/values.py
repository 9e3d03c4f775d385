"""The stored values that a question speaks of (value linking).

After CodeS (Li et al. 2024, arXiv 2402.16347): a full-text search (BM25) finds a few hundred cells in the index of
`tree.schema.value_index`, and a comparison word by word picks among them. Nothing but the database and the text has a
say. Not found: abbreviations ("LA"), nationalities unlike their country ("Dutch"), typing errors in a value's only
word, and values in a script without spaces that the text does not set apart.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from rapidfuzz import fuzz, process

from tree.schema.value_index import WORD, words_of
from tree.sql.database_file import connect
from tree.sql.tokens import literal, quoted

COARSE = 200  # cells that the full-text search hands on
MAX_WORDS = 128  # of a text that are searched for
MAX_MATCHES = 8
MAX_PER_COLUMN = 2
ALIKE = 85  # percent, of two words
ALIKE_QUOTED = 90  # of a cell and what the text has in quotes

# the cells are read only once the best are known
SEARCH = """
SELECT table_name, column_name, value
FROM (SELECT rowid AS number FROM cell WHERE cell MATCH ? ORDER BY bm25(cell), rowid LIMIT ?)
CROSS JOIN cell ON cell.rowid = number JOIN place ON id = place
"""
UNSHOWN = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # line breaks, and bytes that are not UTF-8


@dataclass(frozen=True)
class StoredValue:
    """A cell of a table's column, as it is stored."""

    table: str
    column: str
    value: str


def matching_values(index: Path, text: str) -> list[StoredValue]:
    """The cells that a text speaks of, the surest first: at most MAX_MATCHES, MAX_PER_COLUMN of a column."""
    with contextlib.closing(connect(index)) as connection:
        names = [name for (name,) in connection.execute("SELECT word FROM name")]
        terms = _terms(text, names)
        rows = connection.execute(SEARCH, (terms.query, COARSE)).fetchall()
    matches = (_match(StoredValue(*row), terms) for row in rows if not UNSHOWN.search(row[-1]))
    ranked = sorted(filter(None, matches), key=_Match.rank)
    return [match.cell for match in _picked(ranked)]


def value_lines(cells: Iterable[StoredValue]) -> list[str]:
    """`table.column = 'value'` for each cell, one line each, names and value as SQLite needs them."""
    return [f"{quoted(cell.table)}.{quoted(cell.column)} = {literal(cell.value)}" for cell in cells]


# --- the text -------------------------------------------------------------------------------------------------------

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
class _Terms:
    """What a cell is compared with.

    `query` is FTS5's, for any of the rest; `phrase` has all words, with spaces around; `words` are those that may name
    a value, without the `common` ones; `codes` are words of two characters in capitals; `quoted` what is in quotes, as
    it is, and `quoted_phrases` by its words; `countries` the beginnings of countries whose nationality is named.
    """

    query: str
    phrase: str
    words: tuple[str, ...]
    common: frozenset[str]
    codes: frozenset[str]
    quoted: tuple[str, ...]
    quoted_phrases: tuple[str, ...]
    countries: tuple[str, ...]


def _terms(text: str, names: Iterable[str]) -> _Terms:
    """`names` are the words that tables and columns are named with: a question means those, not a cell."""
    common = STOP_WORDS.union(form for name in names for form in (name, f"{name}s", name.removesuffix("s")))
    words = words_of(text)
    written = [word for word in dict.fromkeys(WORD.findall(text)) if not common.issuperset(words_of(word))]
    in_quotes = list(dict.fromkeys(found for groups in IN_QUOTES.findall(text) for found in groups if found))
    nationalities = [NATIONALITY.fullmatch(word.lower()) for word in written if word[0].isupper()]
    countries = list(dict.fromkeys(nationality[1] for nationality in nationalities if nationality))
    return _Terms(
        query=_search_query(written, in_quotes, countries),
        phrase=f" {' '.join(words)} ",
        words=tuple(dict.fromkeys(word for word in words if word not in common)),
        common=common,
        codes=frozenset(word for word in written if len(word) == 2 and word.isupper()),
        quoted=tuple(in_quotes),
        quoted_phrases=tuple(filter(None, dict.fromkeys(" ".join(words_of(part)) for part in in_quotes))),
        countries=tuple(countries),
    )


def _search_query(words: list[str], in_quotes: list[str], countries: list[str]) -> str:
    """FTS5's query for cells that hold any of these."""
    phrases = [" ".join(WORD.findall(part)) for part in in_quotes]
    terms = [f'"{term}"' for term in (*words[:MAX_WORDS], *phrases[:MAX_WORDS])]
    terms += [f'"{country}" *' for country in countries[:MAX_WORDS]]
    return " OR ".join(terms) or '""'


# --- the comparison -------------------------------------------------------------------------------------------------


class _Kind(IntEnum):
    """Why a text is taken to speak of a cell, the surest first."""

    QUOTED = 0
    PHRASE = 1
    ALIKE_QUOTED = 2
    WORDS = 3


@dataclass(frozen=True)
class _Match:
    """A cell, why the text speaks of it and in which of its words; whether its column is named too."""

    cell: StoredValue
    kind: _Kind
    words: frozenset[str]
    column_is_named: bool

    def rank(self) -> tuple:
        cell = self.cell
        return self.kind, -sum(map(len, self.words)), not self.column_is_named, cell.table, cell.column, cell.value

    def is_weaker(self, other: "_Match") -> bool:
        """Whether `other` accounts for the words that this one rests on: "Hall" beside "Smith Hall"."""
        return self.words < other.words or (self.words == other.words and self.kind > other.kind)


def _picked(ranked: list[_Match]) -> list[_Match]:
    picked: list[_Match] = []
    columns = Counter()
    for match in ranked:
        column = match.cell.table, match.cell.column
        is_weaker = match.kind != _Kind.QUOTED and any(map(match.is_weaker, picked))
        if columns[column] < MAX_PER_COLUMN and not is_weaker:
            columns[column] += 1
            picked.append(match)
    return picked[:MAX_MATCHES]


def _match(cell: StoredValue, terms: _Terms) -> _Match | None:
    """None for a cell that the text does not speak of."""
    kind, words = _matched_words(cell.value, terms)
    if not words:
        return None
    column = " ".join(words_of(cell.column))
    return _Match(cell, kind, frozenset(words), f" {column} " in terms.phrase)


def _matched_words(value: str, terms: _Terms) -> tuple[_Kind, list[str]]:
    """Why a text speaks of a stored value, and in which of its words: in none when it does not."""
    words = words_of(value)
    phrase = " ".join(words)
    if value in terms.quoted:
        return _Kind.QUOTED, words
    if len(value) <= 2:
        return _Kind.PHRASE, words if value in terms.codes else []
    if phrase in terms.quoted_phrases:
        return _Kind.QUOTED, words
    if terms.common.issuperset(words):
        return _Kind.WORDS, []
    if f" {phrase} " in terms.phrase:
        return _Kind.PHRASE, words
    if alike := _most_alike(phrase, terms.quoted_phrases, ALIKE_QUOTED):
        return _Kind.ALIKE_QUOTED, alike.split()
    matched = [_matched_word(word, terms) for word in words]
    return _Kind.WORDS, matched if all(matched) else []


def _matched_word(word: str, terms: _Terms) -> str | None:
    """The word of the text that is this one, or nearly, or its nationality."""
    if f" {word} " in terms.phrase:
        return word
    if (country := word.rstrip("aeiouy")) in terms.countries:
        return country
    return _most_alike(word, terms.words, ALIKE) if len(word) > 3 and word.isalpha() else None


def _most_alike(text: str, others: Iterable[str], percent: int) -> str | None:
    best = process.extractOne(text, others, scorer=fuzz.ratio, score_cutoff=percent)
    return best[0] if best else None
