"""Schema as data -> text for the prompt, in two layouts, in full or shortened to what a budget allows.  Pure.

`ddl` is CREATE TABLE statements with comments. `mschema` follows the layout of M-Schema (XiYan-SQL, arXiv 2411.08599):
a line per column with type, key, description and examples, foreign keys below.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tree.schema.read import Column, ForeignKey, Table
from tree.sql.tokens import quoted

FORMATS = ("ddl", "mschema")
# what is left out of a schema that is too long, in this order; then whole tables
SHORTENINGS = ("examples", "value descriptions", "descriptions")
SIMILAR = 85  # of 100, from which two words are taken for the same: their plural, another form


@dataclass(frozen=True)
class Shortening:
    """What is left out of a schema: the first `steps` of SHORTENINGS, and whole tables by name."""

    steps: int = 0
    tables: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """In words, for the record."""
        return [*SHORTENINGS[: self.steps], *(f"table {name}" for name in self.tables)]


FULL = Shortening()


def schema_text(tables: Sequence[Table], layout: str, shortening: Shortening = FULL) -> str:
    """The text of a schema in one of FORMATS; what refers to a table that is left out is left out too."""
    left_out = {name.lower() for name in shortening.tables}
    kept = [table for table in tables if table.name.lower() not in left_out]
    known = {table.name.lower() for table in kept}
    write = {"ddl": _ddl, "mschema": _mschema}[layout]
    return "\n".join(write(kept, known, shortening.steps))


def _notes(column: Column, steps: int) -> tuple[str, str, tuple[str, ...]]:
    """What is shown of a column beside its name and type: meaning, codes, examples."""
    return (
        column.meaning if steps < 3 else "",
        column.codes if steps < 2 else "",
        column.examples if steps < 1 else (),
    )


# --- layouts --------------------------------------------------------------------------------------------------------


def _ddl(tables: Sequence[Table], known: Collection[str], steps: int) -> list[str]:
    lines = []
    for table in tables:
        lines += [f"CREATE TABLE {quoted(table.name)} (", *_ddl_body(table, known, steps), ");"]
    return lines


def _ddl_body(table: Table, known: Collection[str], steps: int) -> list[str]:
    keys = [key for key in table.foreign_keys if key.target.lower() in known]
    entries = [_ddl_column(table, column, keys, steps) for column in table.columns]
    if len(table.primary_key) > 1:
        entries.append((f"PRIMARY KEY ({_names(table.primary_key)})", ""))
    entries += [(f"FOREIGN KEY ({_names(key.columns)}) {_references(key)}", "") for key in keys if len(key.columns) > 1]
    lines = []
    for number, (text, comment) in enumerate(entries, 1):
        comma = "," if number < len(entries) else ""
        lines.append(f"    {text}{comma}{f' -- {comment}' if comment else ''}")
    return lines


def _ddl_column(table: Table, column: Column, keys: Sequence[ForeignKey], steps: int) -> tuple[str, str]:
    """The definition of a column, and the comment behind it."""
    primary = "PRIMARY KEY" if table.primary_key == (column.name,) else ""
    # the last one, should a column have several
    references = next((_references(key) for key in reversed(keys) if key.columns == (column.name,)), "")
    definition = " ".join(filter(None, [quoted(column.name), column.kind, primary, references]))
    meaning, codes, examples = _notes(column, steps)
    shown = ", ".join(examples)
    if shown and (meaning or codes):
        shown = f"e.g. {shown}"
    return definition, "; ".join(filter(None, [meaning, codes, shown]))


def _references(key: ForeignKey) -> str:
    return f"REFERENCES {quoted(key.target)}{f' ({_names(key.referred)})' if key.referred else ''}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))


def _mschema(tables: Sequence[Table], known: Collection[str], steps: int) -> list[str]:
    lines, links = ["【Schema】"], []
    for table in tables:
        lines += [f"# Table: {quoted(table.name)}", "["]
        lines += [f"({_mschema_column(table, column, steps)})," for column in table.columns]
        lines.append("]")
        for key in table.foreign_keys:
            if key.target.lower() in known:
                links += _links(table, key, tables)
    return lines + (["【Foreign keys】", *links] if links else [])


def _mschema_column(table: Table, column: Column, steps: int) -> str:
    meaning, codes, examples = _notes(column, steps)
    primary = "Primary Key" if column.name in table.primary_key else ""
    shown = f"Examples: [{', '.join(examples)}]" if examples else ""
    return ", ".join(filter(None, [f"{quoted(column.name)}:{column.kind or 'ANY'}", primary, meaning, codes, shown]))


def _links(table: Table, key: ForeignKey, tables: Sequence[Table]) -> list[str]:
    target = next(other for other in tables if other.name.lower() == key.target.lower())
    referred = key.referred or target.primary_key
    return [
        f"{quoted(table.name)}.{quoted(column)}={quoted(target.name)}.{quoted(name)}"
        for column, name in zip(key.columns, referred, strict=False)
    ]


# --- shortening -----------------------------------------------------------------------------------------------------


def shorten(
    tables: Sequence[Table], likely_first: Callable[[], Sequence[str]], fits: Callable[[Shortening], bool]
) -> Shortening | None:
    """The least shortening that `fits`, None when none does. `likely_first()` are the tables' names in the order in
    which they are worth keeping; one is always kept.
    """
    for steps in range(len(SHORTENINGS) + 1):
        if fits(Shortening(steps)):
            return Shortening(steps)
    order = list(likely_first())
    fitting, too_many = 0, len(tables)  # tables kept
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if fits(Shortening(len(SHORTENINGS), tuple(order[middle:]))):
            fitting = middle
        else:
            too_many = middle
    return Shortening(len(SHORTENINGS), tuple(order[fitting:])) if fitting else None


def likely_tables(tables: Sequence[Table], text: str, holding_values: Collection[str]) -> list[str]:
    """Names of tables, the likeliest to be asked about by `text` (question and evidence) first.

    A table counts the words of the text that stand in its name (twice), in its columns' names or meanings, rare words
    more (inverse document frequency), and the values of the text that it holds (`holding_values`: its name, once for
    each). Of equal ones the earlier is likelier.
    """
    from rapidfuzz import fuzz, process

    own = {table.name: _words(table.name) for table in tables}
    every = {
        table.name: own[table.name].union(*(_words(f"{column.name} {column.meaning}") for column in table.columns))
        for table in tables
    }
    vocabulary = sorted(set().union(*every.values()))
    scores: Counter[str] = Counter()
    for word in _words(text):
        similar = {match for match, *_ in process.extract(word, vocabulary, scorer=fuzz.ratio, score_cutoff=SIMILAR)}
        holding = [name for name, words in every.items() if not words.isdisjoint(similar)]
        for name in holding:
            weight = 1 if own[name].isdisjoint(similar) else 2
            scores[name] += weight * math.log(1 + len(tables) / len(holding))
    for name in holding_values:
        scores[name] += math.log(1 + len(tables))
    return [table.name for table in sorted(tables, key=lambda table: -scores[table.name])]


def _words(text: str) -> set[str]:
    """Lower-case words, also those of names like stadium_id and StadiumId."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).replace("_", " ")
    return {word.lower() for word in re.findall(r"[^\W\d]{3,}", parts)}
