"""Execution accuracy after choosing one of N candidates, for several ways of choosing.  Pure.

A figure for N is the mean over subsets of N of a question's candidates (all of them, or SUBSETS drawn ones), so it does
not hang on which came first. Where a way of choosing holds several for equally good, each is chosen equally often.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

SUBSETS = 1_000  # of one question and size
SEED = 0
FAILED, EMPTY, ROWS = 0, 1, 2  # tiers of outcomes


@dataclass(frozen=True)
class Candidates:
    """What is known of a question's M candidates, [M] each.

    `tiers`: FAILED, EMPTY (it ran, without rows) or ROWS. `groups`: one number for each result. `correct`: 1 or
    0 (also without gold). `rewards`: None without a reward model.
    """

    tiers: np.ndarray
    groups: np.ndarray
    correct: np.ndarray
    rewards: np.ndarray | None = None

    def take(self, places: np.ndarray) -> "Candidates":
        """Subsets of the candidates: with places [S, N] all fields are [S, N]."""
        return Candidates(*(None if field is None else field[places] for field in vars(self).values()))


# --- ways of choosing: preferences [S, N], the highest of a row is chosen ---------------------------------------------


def at_random(these: Candidates) -> np.ndarray:
    return np.zeros(these.tiers.shape)


def by_executing(these: Candidates) -> np.ndarray:
    """Any that returns rows, else any that runs."""
    return these.tiers.astype(float)


def by_vote(these: Candidates) -> np.ndarray:
    """Majority vote: the result that most have (self-consistency, arXiv 2203.11171); what fails has no vote."""
    return _votes(these, (these.tiers > FAILED).astype(float))


def by_executing_then_vote(these: Candidates) -> np.ndarray:
    """Majority vote among those that return rows, else among those that run."""
    return _votes(these, _best_tier(these).astype(float))


def by_reward(these: Candidates) -> np.ndarray:
    return these.rewards


def by_executing_then_reward(these: Candidates) -> np.ndarray:
    """The highest reward among those that return rows, else among those that run."""
    return np.where(_best_tier(these), these.rewards, -np.inf)


def by_weighted_vote(these: Candidates) -> np.ndarray:
    """The same with the weight exp(reward) for each candidate: its share in Bradley and Terry's model."""
    rewards = by_executing_then_reward(these)
    return _votes(these, np.exp(rewards - rewards.max(axis=1, keepdims=True)))


def by_oracle(these: Candidates) -> np.ndarray:
    """A correct one, if there is any: what no choice can exceed."""
    return these.correct


def _best_tier(these: Candidates) -> np.ndarray:
    return these.tiers == these.tiers.max(axis=1, keepdims=True)


def _votes(these: Candidates, weights: np.ndarray) -> np.ndarray:
    """For each candidate the weight of all that have its result, rounded so that sums in another order are ties."""
    same = these.groups[:, :, None] == these.groups[:, None, :]
    return np.round((same * weights[:, None, :]).sum(axis=2) * (these.tiers > FAILED), 9)


WITHOUT_REWARD = {
    "random": at_random,
    "executes": by_executing,
    "majority_vote": by_vote,
    "executes_vote": by_executing_then_vote,
    "oracle": by_oracle,
}
WITH_REWARD = {
    "reward": by_reward,
    "executes_reward": by_executing_then_reward,
    "reward_vote": by_weighted_vote,
}

# --- accuracy ---------------------------------------------------------------------------------------------------------


def subsets(total: int, size: int) -> np.ndarray:
    """Places [S, size] of subsets of `total` candidates: all, or SUBSETS drawn ones, always the same."""
    if math.comb(total, size) <= SUBSETS:
        return np.array(list(combinations(range(total), size)))
    draw = random.Random(f"{SEED}/{total}/{size}")
    return np.array([draw.sample(range(total), size) for _ in range(SUBSETS)])


def accuracy(candidates: Candidates, choose: Callable[[Candidates], np.ndarray], size: int) -> float:
    """Chance that the chosen one of `size` candidates (of all, where there are fewer) is correct, for one question.

    A question without candidates has none.
    """
    total = len(candidates.tiers)
    if not total:
        return 0.0
    these = candidates.take(subsets(total, min(size, total)))
    preferences = choose(these)
    chosen = preferences == preferences.max(axis=1, keepdims=True)
    return float(((chosen * these.correct).sum(axis=1) / chosen.sum(axis=1)).mean())


def sizes(most: int) -> list[int]:
    """1, 2, 4, 8, … up to `most`, which is the last."""
    powers = [2**exponent for exponent in range(most.bit_length())]
    return powers if powers[-1] == most else [*powers, most]


def choice(candidates: Candidates, choose: Callable[[Candidates], np.ndarray]) -> int | None:
    """The place of the chosen one of all candidates, the first of those held for equally good; None without any."""
    total = len(candidates.tiers)
    return int(choose(candidates.take(np.arange(total)[None]))[0].argmax()) if total else None


def first_correct(candidates: Sequence[Candidates]) -> list[float]:
    """Whether the first candidate of each question is correct."""
    return [float(these.correct[0]) if len(these.tiers) else 0.0 for these in candidates]
