"""95 % intervals by drawing questions again: what belongs to one question is not independent.  Pure.

B. Efron, R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13 (percentile intervals), with whole
clusters drawn as in A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 1_000
SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval from `low` to `high`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def to_json(self) -> dict[str, float]:
        return {key: round(number, 6) for key, number in vars(self).items()}


class Bootstrap:
    """`draws` samples of the clusters, the same for every figure taken of them: so figures can be compared pairwise.

    `clusters` names the cluster of each of n items (any values that can be keys).
    """

    def __init__(self, clusters: Sequence, draws: int = DRAWS):
        numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
        self.members = np.array([numbers[name] for name in clusters])  # [n]
        count = len(numbers)
        drawn = np.random.default_rng(SEED).integers(count, size=(draws, count))
        # how often each cluster was drawn: [draws, clusters]
        self.times = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(float)

    def mean(self, values: Sequence[float], where: Sequence[bool] | None = None) -> Estimate:
        """The mean of n values, or of those `where` it is true (at least one)."""
        values = np.asarray(values, dtype=float)
        chosen = np.ones(len(values)) if where is None else np.asarray(where, dtype=float)
        clusters = self.times.shape[1]
        sums = self.times @ np.bincount(self.members, values * chosen, minlength=clusters)
        counts = self.times @ np.bincount(self.members, chosen, minlength=clusters)
        return _estimate(float((values * chosen).sum() / chosen.sum()), sums[counts > 0] / counts[counts > 0])

    def statistic(self, of: Callable[[np.ndarray], float]) -> Estimate:
        """Any figure: `of` computes it from the weights [n] of the items."""
        drawn = [of(times[self.members]) for times in self.times]
        return _estimate(of(np.ones(len(self.members))), np.array(drawn))


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(value, float(low), float(high))
