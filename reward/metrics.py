"""How well rewards order pairs.  Pure."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from common.preference import PreferencePair
from reward.data import QuestionPairs

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Numbers = TypeVar("Numbers", float, "np.ndarray", "Tensor")  # one, or many at a time


def bradley_terry_loss(difference: "Tensor") -> "Tensor":
    """Loss of each pair from its chosen minus its rejected reward, [P]: -log sigmoid(difference).

    The negative log-likelihood that chosen wins (Bradley and Terry 1952); TRL's RewardTrainer takes the mean of it.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(difference)


def wins(difference: Numbers) -> Numbers:
    """What a pair counts for in pairwise accuracy, by chosen minus rejected reward: a tie counts as half."""
    return (difference > 0) + 0.5 * (difference == 0)


def pair_metrics(differences: Sequence[float]) -> dict:
    """Pairwise accuracy (a tie counts as half) and mean margin, from chosen minus rejected rewards; at least one."""
    return {
        "pairs": len(differences),
        "accuracy": fmean(map(wins, differences)),
        "mean_margin": fmean(differences),
        "ties": sum(difference == 0 for difference in differences),
    }


def grouped_metrics(names: Sequence[str], differences: Sequence[float]) -> dict[str, dict]:
    """`pair_metrics` of each group of pairs; `names` says to which group a pair belongs."""
    groups: dict[str, list[float]] = {name: [] for name in sorted(set(names))}
    for name, difference in zip(names, differences, strict=True):
        groups[name].append(difference)
    return {name: pair_metrics(group) for name, group in groups.items()}


def reward_differences(
    pairs: Iterable[PreferencePair], questions: Sequence[QuestionPairs], rewards: Sequence[Sequence[float]]
) -> list[float]:
    """Chosen minus rejected reward of each pair; `rewards` are those of the questions' candidates."""
    reward = {
        (question.prompt, sql): value
        for question, values in zip(questions, rewards, strict=True)
        for sql, value in zip(question.candidates, values, strict=True)
    }
    return [reward[pair.prompt, pair.chosen] - reward[pair.prompt, pair.rejected] for pair in pairs]
