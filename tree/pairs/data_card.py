"""The data card: what a set of preference pairs holds, counted while it is written, as Markdown.  Pure."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from common.tables import markdown
from tree.pairs.extraction import REASONS

BINS = 10  # of the prompt lengths, about
UNKNOWN = "not given"
RELATION = "What the rejected query is to the chosen one"
DATABASE = "Database"
DIFFICULTIES = ("simple", "moderate", "challenging")  # BIRD's, in its order
OUTCOMES = ("ok", "empty", "error")  # the most telling ones first


def distance_gap(row: Mapping) -> str:
    """How much nearer the chosen query is to a correct one, in revisions."""
    return "never reached" if row["rejected_dist"] is None else str(row["rejected_dist"] - row["chosen_dist"])


# what pairs are counted by: the heading of the table and the group of a row
GROUPS: dict[str, Callable[[Mapping], str]] = {
    RELATION: lambda row: row["relation"],
    "Distance of the rejected query minus that of the chosen one (revisions)": distance_gap,
    "Difficulty of the question": lambda row: row["difficulty"] or UNKNOWN,
    "Outcome of the rejected query": lambda row: row["rejected_outcome"] or UNKNOWN,
    DATABASE: lambda row: row["db_id"],
}


@dataclass
class Side:
    """Counts of the pairs on one side of a split; memory grows with questions and databases, not with pairs."""

    groups: dict[str, Counter] = field(default_factory=lambda: {heading: Counter() for heading in GROUPS})
    lengths: Counter = field(default_factory=Counter)
    questions: Counter = field(default_factory=Counter)

    def add(self, row: Mapping) -> None:
        """Count a row of a pair file."""
        for heading, group in GROUPS.items():
            self.groups[heading][group(row)] += 1
        self.lengths[len(row["prompt"][0]["content"])] += 1
        self.questions[row["question_id"]] += 1

    @property
    def pairs(self) -> int:
        return self.questions.total()

    @property
    def databases(self) -> Counter:
        return self.groups[DATABASE]

    @property
    def relations(self) -> Counter:
        return self.groups[RELATION]


def data_card(sides: Mapping[str, Side], dropped: Mapping[str, int]) -> str:
    """The card of a split into sides (by name), each with pairs; `dropped` counts pairs that were left out, by reason.

    In every table but the first and the last, a column sums to the pairs of its side.
    """
    tables = [_table("", sides, _totals(sides))]
    for heading in GROUPS:
        found = set().union(*(side.groups[heading] for side in sides.values()))
        rows = {name: [side.groups[heading][name] for side in sides.values()] for name in sorted(found, key=_place)}
        tables.append(_table(heading, sides, rows))
    tables.append(_table("Length of the prompt (characters)", sides, _length_rows(sides)))
    left_out = {f"{reason}: {meaning}": [dropped.get(reason, 0)] for reason, meaning in REASONS.items()}
    tables.append(_section("Pairs that were left out", ["", "pairs"], left_out))
    return "# Preference pairs\n\n" + "\n".join(tables)


def _totals(sides: Mapping[str, Side]) -> dict[str, list]:
    counts = {name: list(side.questions.values()) for name, side in sides.items()}
    return {
        "pairs": [side.pairs for side in sides.values()],
        "questions": [len(side.questions) for side in sides.values()],
        "databases": [len(side.databases) for side in sides.values()],
        "pairs of a question, mean": [f"{sum(found) / len(found):.1f}" for found in counts.values()],
        "pairs of a question, median": [f"{median(found):g}" for found in counts.values()],
        "pairs of a question, most": [max(found) for found in counts.values()],
    }


def _place(name: str) -> tuple:
    """Known names in their own order, numbers by size, the rest by alphabet."""
    known = (*DIFFICULTIES, *OUTCOMES)
    if name in known:
        return 0, known.index(name), name
    return (1, int(name), name) if name.isdecimal() else (2, 0, name)


def _length_rows(sides: Mapping[str, Side]) -> dict[str, list]:
    """Pairs by prompt length, in about BINS steps of a round width that all sides share."""
    lengths = set().union(*(side.lengths for side in sides.values()))
    width = _round_width((max(lengths) - min(lengths)) / BINS)
    bins = [Counter() for _ in sides]
    for found, side in zip(bins, sides.values(), strict=True):
        for length, pairs in side.lengths.items():
            found[length // width] += pairs
    places = range(min(lengths) // width, max(lengths) // width + 1)
    return {f"{place * width} to {(place + 1) * width - 1}": [found[place] for found in bins] for place in places}


def _round_width(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, … that is not below `least`."""
    width, steps = 1, (2, 2.5, 2)
    for turn in range(100):
        if width >= least:
            break
        width = round(width * steps[turn % 3])
    return width


def _table(heading: str, sides: Mapping[str, Side], rows: Mapping[str, list]) -> str:
    return _section(heading, ["", *sides], rows)


def _section(heading: str, columns: list[str], rows: Mapping[str, list]) -> str:
    """A table, below its heading if it has one."""
    head = [f"## {heading}", ""] if heading else []
    return "\n".join([*head, *markdown([columns, *([name, *row] for name, row in rows.items())]), ""])
