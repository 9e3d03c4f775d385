"""How well rewards order preference pairs: figures with intervals, by group, beside baselines.  Pure."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from common.preference import PreferencePair, Prompt
from eval.intervals import DIFFERENCE, Clusters, Estimate
from reward.metrics import wins

BINS = 10
RETURNS = {"ok": "returns rows", "empty": "returns none"}

Rewards = Mapping[tuple[Prompt, str], float]  # of a query behind a prompt


def auc(chosen: np.ndarray, rejected: np.ndarray) -> Callable[[np.ndarray], float]:
    """Chance that the reward of a chosen query, of any pair, is above that of a rejected one, of any pair.

    The area under the ROC curve over all sides of the pairs, as a function of the pairs' weights, all [P]: rewards are
    sorted once for all weights. Unlike accuracy it compares across questions.
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
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    total = np.bincount(bins, weights, BINS)
    confident, correct = (np.bincount(bins, weights * values, BINS) for values in (confidence, wins(differences)))
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


# property -> its value of a pair, "" for a pair that does not say
GROUPS: dict[str, Callable[[PreferencePair], str]] = {
    "chosen_query": lambda pair: "" if pair.chosen_dist is None else ("wrong" if pair.chosen_dist else "right"),
    "rejected_query": lambda pair: pair.rejected_outcome and RETURNS.get(pair.rejected_outcome, "fails"),
    "relation": lambda pair: pair.relation,
    "distance_gap": lambda pair: pair.distance_gap,
    "difficulty": lambda pair: pair.difficulty,
    "database": lambda pair: pair.db_id,
}


def pair_report(pairs: Sequence[PreferencePair], rewards: dict[str, Rewards]) -> dict:
    """Figures of each adapter, of the baselines, and the accuracy of each adapter minus that of the one before.

    `rewards` are those of each adapter. Intervals are over questions.
    """
    questions = Clusters([pair.question for pair in pairs])
    adapters, hits = {}, {}
    for name, of in rewards.items():
        chosen = np.array([of[pair.prompt, pair.chosen] for pair in pairs])
        rejected = np.array([of[pair.prompt, pair.rejected] for pair in pairs])
        adapters[name] = figures(pairs, questions, chosen, rejected)
        hits[name] = wins(chosen - rejected)
    shorter = wins(np.array([len(pair.rejected) - len(pair.chosen) for pair in pairs]))
    baselines = {"shorter wins": questions.mean(shorter), "random": Estimate(0.5, 0.5, 0.5)}  # which is known
    return {
        "adapters": adapters,
        "baselines": {
            name: {"pairs": len(pairs), "accuracy": estimate.to_json()} for name, estimate in baselines.items()
        },
        "differences": {
            f"{name} minus {before}": questions.mean(hits[name] - hits[before], within=DIFFERENCE).to_json()
            for before, name in pairwise(rewards)
        },
    }


def figures(
    pairs: Sequence[PreferencePair], questions: Clusters, chosen: np.ndarray, rejected: np.ndarray
) -> dict[str, object]:
    """All figures of the rewards [P] of the chosen and the rejected queries."""
    differences = chosen - rejected
    hits = wins(differences)
    found = {
        "pairs": len(pairs),
        "accuracy": questions.mean(hits).to_json(),
        "auc": questions.statistic(auc(chosen, rejected)).to_json(),
        "mean_margin": questions.mean(differences, within=None).to_json(),
        "calibration_error": questions.statistic(partial(calibration_error, differences)).to_json(),
        "ties": int((differences == 0).sum()),
    }
    for group, key in GROUPS.items():
        values = np.array([key(pair) for pair in pairs])
        found[f"by_{group}"] = {
            value: {"pairs": int((values == value).sum()), "accuracy": questions.mean(hits, values == value).to_json()}
            for value in sorted({*values.tolist()} - {""})
        }
    found["calibration"] = calibration(differences, np.ones(len(pairs)))
    found["margins"] = [round(float(difference), 6) for difference in differences]
    return found
