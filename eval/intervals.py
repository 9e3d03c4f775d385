"""95 % intervals of figures over questions: what belongs to one question is not independent.  Pure.

Each question (cluster) is left out once, which gives the figure's variance without assuming anything of what is within
a question: the jackknife, e.g. C.-F. J. Wu, "Jackknife, bootstrap and other resampling methods in regression analysis",
Annals of Statistics 14 (1986), 1261-1295. The interval is Student's, with one degree of freedom less than there are
questions. Where the figure has a range, it is the score interval of E. B. Wilson (Journal of the American Statistical
Association 22, 1927, 209-212) with Student's quantile and as many trials as would have that variance, which stays in
the range and covers better near its ends (N. Dean, M. Pagano, "Evaluating confidence interval methods for binomial
proportions in clustered surveys", Journal of Survey Statistics and Methodology 3, 2015, 484-503).

Simulated coverage of an accuracy with 5, 10, 30 and 100 questions: 0.97, 0.96, 0.94, 0.94, of an AUC
0.96, 0.93, 0.93, 0.94, of a calibration error 0.56, 0.52, 0.73, 0.91: few questions make it too high
(`bench/interval_coverage.py`; docs/RESULTS.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
SAME = 1e-9  # figures that differ by less are the same but for rounding
SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)  # ranges of a mean of hits, and of that of two less each other


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval from `low` to `high`, None where there are too few questions for any."""

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        return {key: None if number is None else round(number, 6) for key, number in vars(self).items()}


class Clusters:
    """Items that belong to questions; `names` says to which each of n items does (any values that can be keys)."""

    def __init__(self, names: Sequence):
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self.members = np.array([numbers[name] for name in names])  # [n]
        self.count = len(numbers)

    def mean(
        self,
        values: Sequence[float],
        where: Sequence[bool] | None = None,
        within: tuple[float, float] | None = SHARE,
    ) -> Estimate:
        """The mean of n values, or of those `where` it is true (at least one); `within` is its range, if it has one."""
        values = np.asarray(values, dtype=float)
        chosen = np.ones(len(values)) if where is None else np.asarray(where, dtype=float)
        sums, counts = (np.bincount(self.members, weights, self.count) for weights in (values * chosen, chosen))
        sums, counts = sums[counts > 0], counts[counts > 0]
        if len(counts) == 1:
            return Estimate(float(sums[0] / counts[0]), None, None)
        without = (sums.sum() - sums) / (counts.sum() - counts)
        return interval_of(float(sums.sum() / counts.sum()), without, within)

    def statistic(self, of: Callable[[np.ndarray], float], within: tuple[float, float] | None = SHARE) -> Estimate:
        """Any figure: `of` computes it from the weights [n] of the items."""
        value = float(of(np.ones(len(self.members))))
        if self.count == 1:
            return Estimate(value, None, None)
        without = np.array([of((self.members != number).astype(float)) for number in range(self.count)])
        return interval_of(value, without, within)


def interval_of(value: float, without: np.ndarray, within: tuple[float, float] | None) -> Estimate:
    """A figure of two clusters or more, from what it is without each of them [clusters].

    Where all are the same, how far they lie apart says nothing. Clusters that are otherwise may then have the share
    that `unseen` gives, at either end of the range.
    """
    clusters = len(without)
    if np.ptp(without) < SAME:
        if within is None:
            return Estimate(value, None, None)
        return Estimate(value, *(value + unseen(clusters) * (end - value) for end in within))
    variance = (clusters - 1) / clusters * ((without - value) ** 2).sum()
    quantile = float(stdtrit(clusters - 1, (1 + LEVEL) / 2))
    if within is None:
        half = quantile * variance**0.5
        return Estimate(value, value - half, value + half)
    start, width = within[0], within[1] - within[0]
    low, high = score_interval((value - start) / width, variance / width**2, quantile)
    return Estimate(value, min(value, start + width * low), max(value, start + width * high))


def score_interval(share: float, variance: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval of a share from 0 to 1 that was estimated with this variance (above 0).

    The bounds p are those with (share - p)^2 = quantile^2 p (1 - p) / trials, where share (1 - share) / trials is the
    variance.
    """
    trials = max(share * (1 - share), SAME) / variance
    scale = 1 + quantile**2 / trials
    centre = (share + quantile**2 / (2 * trials)) / scale
    half = quantile / scale * (share * (1 - share) / trials + quantile**2 / (4 * trials**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def unseen(clusters: int) -> float:
    """The largest share that something can have which none of so many clusters showed: 1 less 0.025 ** (1 / clusters).

    C. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934), 404-413, for no success.
    """
    return 1 - ((1 - LEVEL) / 2) ** (1 / clusters)
