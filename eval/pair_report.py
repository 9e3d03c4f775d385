"""How well rewards order preference pairs: figures with intervals, by group, beside baselines.  Pure."""

from collections.abc import Callable, Sequence

import numpy as np

from eval.intervals import DIFFERENCE, Clusters, Estimate
from reward.data import PreferencePair
from reward.metrics import wins

BINS = 10
NO_REWARD = ("shorter wins", "random")


def auc(chosen: np.ndarray, rejected: np.ndarray) -> Callable[[np.ndarray], float]:
    """Chance that the reward of a chosen query, of any pair, is above that of a rejected one, of any pair.

    The area under the ROC curve over all sides of the pairs, as a function of the pairs' weights, all [P]: rewards are
    sorted once for all weights. Other than accuracy it compares across questions.
    """
    count = len(chosen)
    _, ranks = np.unique(np.concatenate([chosen, rejected]), return_inverse=True)
    levels = ranks.max() + 1

    def weighted(weights: np.ndarray) -> float:
        right = np.bincount(ranks[:count], weights, levels)
        wrong = np.bincount(ranks[count:], weights, levels)
        return float(right @ (np.cumsum(wrong) - wrong / 2) / weights.sum() ** 2)

    return weighted


def calibration(differences: np.ndarray, weights: np.ndarray) -> list[dict[str, float]]:
    """Of each of BINS bins of the confidence sigmoid(|difference|), 0.5 to 1: its share, mean confidence, accuracy.

    The confidence is the chance that Bradley and Terry's model gives to the query that it prefers. Empty bins are left
    out.
    """
    confidence = 1 / (1 + np.exp(-np.abs(differences)))
    right = (np.sign(differences) + 1) / 2  # `wins` of all
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    total = np.bincount(bins, weights, BINS)
    confident, correct = (np.bincount(bins, weights * values, BINS) for values in (confidence, right))
    return [
        {"share": share / total.sum(), "confidence": sure / share, "accuracy": hits / share}
        for share, sure, hits in zip(total, confident, correct, strict=True)
        if share
    ]


def calibration_error(differences: np.ndarray, weights: np.ndarray) -> float:
    """Expected calibration error of sigmoid(difference): mean distance of accuracy from confidence over the bins.

    C. Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, eq. 3.
    """
    return sum(part["share"] * abs(part["accuracy"] - part["confidence"]) for part in calibration(differences, weights))


def distance_gap(pair: PreferencePair) -> str:
    """How many revisions further the rejected query is from a correct one; "never" when it reached none."""
    if pair.chosen_dist is None:
        return ""
    return "never" if pair.rejected_dist is None else str(pair.rejected_dist - pair.chosen_dist)


GROUPS = {
    "relation": lambda pair: pair.relation,
    "distance gap": distance_gap,
    "difficulty": lambda pair: pair.difficulty,
    "database": lambda pair: pair.db_id,
}


class PairReport:
    """Figures of rewards on the same pairs, with intervals over their questions."""

    def __init__(self, pairs: Sequence[PreferencePair]):
        self.pairs = pairs
        self.questions = Clusters([pair.question for pair in pairs])
        self.groups = {
            name: {
                value: [key(pair) == value for pair in pairs] for value in sorted({key(pair) for pair in pairs} - {""})
            }
            for name, key in GROUPS.items()
        }

    def figures(self, chosen: Sequence[float], rejected: Sequence[float]) -> dict:
        """All figures of the rewards [P] of the chosen and the rejected queries."""
        ones, others = np.asarray(chosen), np.asarray(rejected)
        differences, questions = ones - others, self.questions
        hits = [wins(difference) for difference in differences]
        return {
            "pairs": len(hits),
            "accuracy": questions.mean(hits).to_json(),
            "auc": questions.statistic(auc(ones, others)).to_json(),
            "mean_margin": questions.mean(differences, within=None).to_json(),
            "calibration_error": questions.statistic(lambda weights: calibration_error(differences, weights)).to_json(),
            "ties": int((differences == 0).sum()),
            **{
                f"by_{name.replace(' ', '_')}": {
                    value: {"pairs": sum(where), "accuracy": questions.mean(hits, where).to_json()}
                    for value, where in values.items()
                }
                for name, values in self.groups.items()
            },
            "calibration": calibration(differences, np.ones(len(hits))),
            "margins": [round(float(difference), 6) for difference in differences],
        }

    def baselines(self) -> dict[str, dict]:
        """Accuracy without a reward model: of preferring the shorter query, and of a coin, which is known."""
        shorter = self.questions.mean([wins(len(pair.rejected) - len(pair.chosen)) for pair in self.pairs])
        return {
            name: {"pairs": len(self.pairs), "accuracy": estimate.to_json()}
            for name, estimate in zip(NO_REWARD, (shorter, Estimate(0.5, 0.5, 0.5)), strict=True)
        }

    def difference(self, margins: Sequence[float], other: Sequence[float]) -> Estimate:
        """Accuracy of the first rewards less that of the others, by their reward differences [P]."""
        won = [wins(one) - wins(two) for one, two in zip(margins, other, strict=True)]
        return self.questions.mean(won, within=DIFFERENCE)
