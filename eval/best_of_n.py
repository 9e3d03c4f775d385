"""Execution accuracy after choosing one of N candidates: rules, and a table of them over N.  Pure.

A figure for N is the mean over subsets of N of a question's candidates (all of them, or SUBSETS drawn ones), so it does
not hang on which came first. Where a rule holds several for equally good, each is chosen equally often.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from eval.intervals import DIFFERENCE, SHARE, Clusters, Range

SUBSETS = 1_000  # of one question and size
SEED = 0
FAILED, EMPTY, ROWS = 0, 1, 2  # tiers of outcomes


@dataclass(frozen=True)
class Candidates:
    """What is known of a question's M candidates, [M] each; of S subsets of N of them, [S, N] each.

    `tiers`: FAILED, EMPTY (it ran, without rows) or ROWS. `groups`: one number for each result. `correct`: 1 or
    0 (also without gold). `rewards`: None without a reward model.
    """

    tiers: np.ndarray
    groups: np.ndarray
    correct: np.ndarray
    rewards: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tiers)

    def take(self, numbers: np.ndarray) -> "Candidates":
        """Those with these numbers, in their shape."""
        return Candidates(*(None if column is None else column[numbers] for column in vars(self).values()))


# --- rules: preferences [S, N], the highest of a row is chosen --------------------------------------------------------

Rule = Callable[[Candidates], np.ndarray]


def by_vote(subsets: Candidates) -> np.ndarray:
    """Majority vote: the result that most have (self-consistency, arXiv 2203.11171); what fails has no vote."""
    return _votes(subsets, (subsets.tiers > FAILED).astype(float))


def by_executing_then_vote(subsets: Candidates) -> np.ndarray:
    """Majority vote among those that return rows, else among those that run."""
    return _votes(subsets, _best_tier(subsets).astype(float))


def by_executing_then_reward(subsets: Candidates) -> np.ndarray:
    """The highest reward among those that return rows, else among those that run."""
    return np.where(_best_tier(subsets), subsets.rewards, -np.inf)


def by_weighted_vote(subsets: Candidates) -> np.ndarray:
    """The same vote with the weight exp(reward) for each candidate: its share in Bradley and Terry's model."""
    rewards = by_executing_then_reward(subsets)
    return _votes(subsets, np.exp(rewards - rewards.max(axis=1, keepdims=True)))


def _best_tier(subsets: Candidates) -> np.ndarray:
    return subsets.tiers == subsets.tiers.max(axis=1, keepdims=True)


def _votes(subsets: Candidates, weights: np.ndarray) -> np.ndarray:
    """For each candidate the weight of all that have its result, rounded so that sums in another order are ties."""
    same = subsets.groups[:, :, None] == subsets.groups[:, None, :]
    return np.round((same * weights[:, None, :]).sum(axis=2) * (subsets.tiers > FAILED), 9)


WITHOUT_REWARD: dict[str, Rule] = {
    "random": lambda subsets: np.zeros(subsets.tiers.shape),
    "executes": lambda subsets: subsets.tiers,  # any that returns rows, else any that runs
    "majority_vote": by_vote,
    "executes_vote": by_executing_then_vote,
    "oracle": lambda subsets: subsets.correct,  # what no rule can exceed
}
WITH_REWARD: dict[str, Rule] = {
    "reward": lambda subsets: subsets.rewards,
    "executes_reward": by_executing_then_reward,
    "reward_vote": by_weighted_vote,
}

# for predictions, the default first
CHOICES = ("reward_vote", "executes_reward", "reward", "majority_vote", "executes_vote")

# --- accuracy ---------------------------------------------------------------------------------------------------------


def subsets_of(total: int, size: int) -> np.ndarray:
    """Numbers [S, size] of subsets of `total` candidates: all, or SUBSETS drawn ones, always the same."""
    if math.comb(total, size) <= SUBSETS:
        return np.array(list(combinations(range(total), size)))
    draw = random.Random(f"{SEED}/{total}/{size}")
    return np.array([draw.sample(range(total), size) for _ in range(SUBSETS)])


def accuracy(candidates: Candidates, rule: Rule, size: int) -> float:
    """Chance that the chosen one of `size` candidates (of all, where there are fewer) is correct, for one question.

    A question without candidates has none.
    """
    total = len(candidates)
    if not total:
        return 0.0
    subsets = candidates.take(subsets_of(total, min(size, total)))
    preferences = rule(subsets)
    chosen = preferences == preferences.max(axis=1, keepdims=True)
    return float(((chosen * subsets.correct).sum(axis=1) / chosen.sum(axis=1)).mean())


def choice(candidates: Candidates, rule: Rule) -> int | None:
    """The number of the chosen one of all candidates, the first of those held for equally good; None without any."""
    total = len(candidates)
    return int(rule(candidates.take(np.arange(total)[None]))[0].argmax()) if total else None


# --- report ---------------------------------------------------------------------------------------------------------

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
