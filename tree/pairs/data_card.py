"""The data card: what a set of preference pairs holds, counted while it is written, as Markdown.  Pure."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from common.preference import PreferencePair
from common.tables import markdown
from tree.pairs.extraction import REASONS

BINS = 10  # of the prompt lengths, about
UNKNOWN = "not given"
RELATION = "What the rejected query is to the chosen one"
DATABASE = "Database"
# names with an order of their own: BIRD's difficulties, then the most telling outcomes
ORDER = ("simple", "moderate", "challenging", "ok", "empty", "error")


# what pairs are counted by: the heading of the table and the group of a pair
GROUPS: dict[str, Callable[[PreferencePair], str]] = {
    RELATION: lambda pair: pair.relation,
    "Chosen query": lambda pair: "right" if pair.chosen_dist == 0 else "wrong, but nearer to a right one",
    "Distance of the rejected query minus that of the chosen one (revisions)": lambda pair: pair.distance_gap,
    "Difficulty of the question": lambda pair: pair.difficulty or UNKNOWN,
    "Outcome of the rejected query": lambda pair: pair.rejected_outcome or UNKNOWN,
    DATABASE: lambda pair: pair.db_id,
}


@dataclass
class SplitCounts:
    """Counts of the pairs of one split; memory grows with questions and databases, not with pairs."""

    groups: dict[str, Counter[str]] = field(default_factory=lambda: {heading: Counter() for heading in GROUPS})
    lengths: Counter[int] = field(default_factory=Counter)
    questions: Counter[int] = field(default_factory=Counter)

    def add(self, pair: PreferencePair) -> None:
        for heading, group in GROUPS.items():
            self.groups[heading][group(pair)] += 1
        self.lengths[sum(len(turn.content) for turn in pair.prompt)] += 1
        self.questions[pair.question_id] += 1

    @property
    def pairs(self) -> int:
        return self.questions.total()

    @property
    def databases(self) -> Counter[str]:
        return self.groups[DATABASE]

    @property
    def relations(self) -> Counter[str]:
        return self.groups[RELATION]


def data_card(splits: Mapping[str, SplitCounts], dropped: Mapping[str, int]) -> str:
    """The card of splits (by name), each with pairs; `dropped` counts pairs that were left out, by reason.

    In every table but the first and the last, a column sums to the pairs of its split.
    """
    head, counts = ["", *splits], splits.values()
    tables = [_table("", head, _totals(list(counts)))]
    for heading in GROUPS:
        found = sorted(set().union(*(of.groups[heading] for of in counts)), key=_place)
        tables.append(_table(heading, head, {name: [of.groups[heading][name] for of in counts] for name in found}))
    tables.append(_table("Length of the prompt (characters)", head, _histogram([of.lengths for of in counts])))
    left_out = {f"{reason}: {meaning}": [dropped.get(reason, 0)] for reason, meaning in REASONS.items()}
    tables.append(_table("Pairs that were left out", ["", "pairs"], left_out))
    return "# Preference pairs\n\n" + "\n".join(tables)


def _totals(splits: list[SplitCounts]) -> dict[str, list]:
    per_question = [list(of.questions.values()) for of in splits]
    return {
        "pairs": [of.pairs for of in splits],
        "questions": [len(of.questions) for of in splits],
        "databases": [len(of.databases) for of in splits],
        "pairs of a question, mean": [f"{sum(counts) / len(counts):.1f}" for counts in per_question],
        "pairs of a question, median": [f"{median(counts):g}" for counts in per_question],
        "pairs of a question, most": [max(counts) for counts in per_question],
    }


def _place(name: str) -> tuple:
    """Sorts names of ORDER first, then numbers by size, the rest by alphabet."""
    if name in ORDER:
        return 0, ORDER.index(name), name
    return (1, int(name), name) if name.isdecimal() else (2, 0, name)


def _histogram(lengths: list[Counter[int]]) -> dict[str, list]:
    """Pairs of each split by prompt length, in about BINS steps of a round width."""
    found = set().union(*lengths)
    width = _round_width((max(found) - min(found)) / BINS)
    bins = [Counter() for _ in lengths]
    for counts, of_split in zip(bins, lengths, strict=True):
        for length, pairs in of_split.items():
            counts[length // width] += pairs
    steps = range(min(found) // width, max(found) // width + 1)
    return {f"{step * width} to {(step + 1) * width - 1}": [counts[step] for counts in bins] for step in steps}


def _round_width(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, … that is not below `least`."""
    widths = (digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    return next(width for width in widths if width >= least)


def _table(heading: str, head: list[str], rows: Mapping[str, list]) -> str:
    """A table, below its heading if it has one."""
    above = [f"## {heading}", ""] if heading else []
    return "\n".join([*above, *markdown([head, *([name, *row] for name, row in rows.items())]), ""])
