"""Execution accuracy of choosing among candidates: a table of ways of choosing over N, with intervals.  Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.best_of_n import WITH_REWARD, WITHOUT_REWARD, Candidates, accuracy, first_correct, sizes
from eval.intervals import DIFFERENCE, Clusters

VOTES, FIRST = ("majority_vote", "executes_vote"), "first"


@dataclass(frozen=True)
class Way:
    """A way of choosing, and the adapter whose rewards it uses ("" for none)."""

    choose: str
    adapter: str = ""

    def __str__(self) -> str:
        return f"{self.choose} ({self.adapter})" if self.adapter else self.choose


def choice_report(plain: Sequence[Candidates], rewarded: dict[str, Sequence[Candidates]]) -> dict:
    """EX of each way of choosing for N = 1, 2, 4, …, over questions with gold, with intervals.

    `plain` are the questions' candidates, `rewarded` the same with the rewards of each adapter. A question with fewer
    than N candidates counts with all it has. `first` is the first candidate as it stands (for a list that begins with
    the greedy query: greedy). `differences` are, by N, those of the ways with rewards to the votes without and to the
    first candidate, and of each adapter to the one before.
    """
    numbers = sizes(max(1, *(len(these.tiers) for these in plain)))
    questions = Clusters(range(len(plain)))
    ways = {Way(name): (choose, plain) for name, choose in WITHOUT_REWARD.items()} | {
        Way(name, adapter): (choose, known)
        for adapter, known in rewarded.items()
        for name, choose in WITH_REWARD.items()
    }
    hits = {
        way: {number: [accuracy(these, choose, number) for these in known] for number in numbers}
        for way, (choose, known) in ways.items()
    }
    first = first_correct(plain)
    reference = {name: hits[Way(name)] for name in VOTES} | {FIRST: dict.fromkeys(numbers, first)}

    def less(ones: dict[int, list[float]], others: dict[int, list[float]]) -> dict:
        return {
            str(number): questions.mean(np.subtract(ones[number], others[number]), within=DIFFERENCE).to_json()
            for number in numbers
        }

    adapters = list(rewarded)
    differences = {
        f"{way} less {name}": less(hits[way], values)
        for way in hits
        if way.adapter
        for name, values in reference.items()
    } | {
        f"{Way(name, one)} less {Way(name, other)}": less(hits[Way(name, one)], hits[Way(name, other)])
        for other, one in zip(adapters, adapters[1:], strict=False)
        for name in WITH_REWARD
    }
    return {
        "questions": len(plain),
        "sizes": numbers,
        FIRST: questions.mean(first).to_json(),
        "ways": [
            {
                "choose": way.choose,
                "adapter": way.adapter,
                "ex": {str(number): questions.mean(values).to_json() for number, values in by_number.items()},
            }
            for way, by_number in hits.items()
        ],
        "differences": differences,
    }
