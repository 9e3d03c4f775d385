"""95 % intervals of figures over questions: what belongs to one question is not independent.  Pure.

Each question (cluster) is left out once, which gives the figure's variance without assuming anything of what is within
a question: the jackknife, e.g. C.-F. J. Wu, "Jackknife, bootstrap and other resampling methods in regression analysis",
Annals of Statistics 14 (1986), 1261-1295. The interval is Student's, with one degree of freedom fewer than there are
questions. Where the figure has a range it is Wilson's, with Student's quantile and as many trials as would have that
variance, which stays in the range and covers better near its ends (N. Dean, M. Pagano, "Evaluating confidence interval
methods for binomial proportions in clustered surveys", Journal of Survey Statistics and Methodology 3, 2015, 484-503).

Covered: means, differences of means, any figure of weighted items. Simulated coverage of an accuracy with 5, 10, 30 and
100 questions: 0.97, 0.96, 0.94, 0.94, of an AUC 0.96, 0.93, 0.93, 0.94 (`bench/interval_coverage.py`; docs/RESULTS.md).
Not covered: a single question, which has no interval; calibration errors, which few questions make too high (0.56,
0.52, 0.73, 0.91).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)  # 1.96
SAME = 1e-9  # figures that are closer than this are the same but for rounding
SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)  # ranges of a mean of hits, and of one such mean minus another

Range = tuple[float, float]


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
        self, values: Sequence[float], where: Sequence[bool] | None = None, within: Range | None = SHARE
    ) -> Estimate:
        """The mean of n values, or of those `where` it is true (at least one); `within` is its range, if it has one."""
        weights = np.ones(len(values)) if where is None else np.asarray(where, dtype=float)
        counts = np.bincount(self.members, weights, self.count)
        sums = np.bincount(self.members, weights * values, self.count)
        sums, counts = sums[counts > 0], counts[counts > 0]
        value = float(sums.sum() / counts.sum())
        if len(counts) == 1:
            return Estimate(value, None, None)
        return jackknife(value, (sums.sum() - sums) / (counts.sum() - counts), within)

    def statistic(self, of: Callable[[np.ndarray], float], within: Range | None = SHARE) -> Estimate:
        """Any figure: `of` computes it from the weights [n] of the items."""
        value = float(of(np.ones(len(self.members))))
        if self.count == 1:
            return Estimate(value, None, None)
        without = [of((self.members != number).astype(float)) for number in range(self.count)]
        return jackknife(value, np.array(without), within)


def jackknife(value: float, without: np.ndarray, within: Range | None) -> Estimate:
    """A figure of two clusters or more, from what it is without each of them [clusters].

    Where all are the same, how far they lie apart says nothing. Clusters that are otherwise may then have the share
    that `unseen` gives, at either end of the range.
    """
    from scipy.special import stdtrit

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
    share = (value - start) / width
    trials = max(share * (1 - share), SAME) * width**2 / variance
    return Estimate(value, *(start + width * bound for bound in wilson(share, trials, quantile)))


def wilson(share: float, trials: float, quantile: float = Z) -> tuple[float, float]:
    """Score interval of a share from 0 to 1 that was seen in so many trials (above 0, not always whole).

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927), 209-212: the bounds p are those with
    (share - p)^2 = quantile^2 p (1 - p) / trials.
    """
    scale = 1 + quantile**2 / trials
    centre = (share + quantile**2 / (2 * trials)) / scale
    half = quantile / scale * (share * (1 - share) / trials + quantile**2 / (4 * trials**2)) ** 0.5
    # at 0 and 1 a bound is the share itself, which rounding can miss by a hair
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def unseen(clusters: int) -> float:
    """The largest share that something can have which none of so many clusters showed: 1 - 0.025 ** (1 / clusters).

    C. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934), 404-413, for no success.
    """
    return 1 - ((1 - LEVEL) / 2) ** (1 / clusters)
