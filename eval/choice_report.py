"""Execution accuracy of choosing among candidates: a table of rules over N, with intervals.  Pure."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from eval.best_of_n import WITH_REWARD, WITHOUT_REWARD, Candidates, Rule, accuracy
from eval.intervals import DIFFERENCE, SHARE, Clusters, Range

FIRST = "first"
REFERENCES = ("majority_vote", "executes_vote", FIRST)  # what each rule with rewards is compared with

Way = tuple[str, str]  # rule, and the adapter whose rewards it uses ("" for none)


def choice_report(plain: Sequence[Candidates], rewarded: dict[str, Sequence[Candidates]]) -> dict:
    """EX of each rule for N = 1, 2, 4, …, over questions with gold, with intervals.

    `plain` are the questions' candidates, `rewarded` the same with the rewards of each adapter. A question with fewer
    than N candidates counts with all it has. `first` is the first candidate as it stands (for a list that begins with
    the greedy query: greedy). `differences` are, by N, those of `compared`.
    """
    numbers = sizes(max(1, *map(len, plain)))
    questions = Clusters(range(len(plain)))
    hits: dict[Way, np.ndarray] = {}  # [numbers, questions]: the chance that what is chosen is correct
    for rule, choose in WITHOUT_REWARD.items():
        hits[rule, ""] = hits_of(plain, choose, numbers)
    for adapter, candidates in rewarded.items():
        for rule, choose in WITH_REWARD.items():
            hits[rule, adapter] = hits_of(candidates, choose, numbers)
    first = first_correct(plain)

    def estimates(values: np.ndarray, within: Range) -> dict[str, dict]:
        means = [questions.mean(row, within=within).to_json() for row in values]
        return dict(zip(map(str, numbers), means, strict=True))

    ways = [
        {"choose": rule, "adapter": adapter, "ex": estimates(values, SHARE)} for (rule, adapter), values in hits.items()
    ]
    hits[FIRST, ""] = np.tile(first, (len(numbers), 1))
    return {
        "questions": len(plain),
        "sizes": numbers,
        FIRST: questions.mean(first).to_json(),
        "ways": ways,
        "differences": {
            f"{label(*one)} minus {label(*other)}": estimates(hits[one] - hits[other], DIFFERENCE)
            for one, other in compared(list(rewarded))
        },
    }


def compared(adapters: Sequence[str]) -> Iterator[tuple[Way, Way]]:
    """Each rule with rewards and each of REFERENCES; each rule by the rewards of an adapter and of the one before."""
    for adapter in adapters:
        for rule in WITH_REWARD:
            yield from (((rule, adapter), (reference, "")) for reference in REFERENCES)
    for before, adapter in pairwise(adapters):
        yield from (((rule, adapter), (rule, before)) for rule in WITH_REWARD)


def label(rule: str, adapter: str) -> str:
    return f"{rule} ({adapter})" if adapter else rule


def hits_of(questions: Sequence[Candidates], rule: Rule, numbers: Sequence[int]) -> np.ndarray:
    """[numbers, questions]: the accuracy of choosing one of so many candidates."""
    return np.array([[accuracy(candidates, rule, number) for candidates in questions] for number in numbers])


def sizes(most: int) -> list[int]:
    """1, 2, 4, 8, … up to `most`, which is the last."""
    powers = [2**exponent for exponent in range(most.bit_length())]
    return powers if powers[-1] == most else [*powers, most]


def first_correct(questions: Sequence[Candidates]) -> np.ndarray:
    """Whether the first candidate of each question is correct; without any it is not."""
    return np.array([candidates.correct[0] if len(candidates) else 0.0 for candidates in questions])
