"""How often the 95 % intervals of evaluate.py hold the true value, by simulation, over numbers of questions.

    python -m bench.interval_coverage

Accuracies of 0.5, 0.7 and 0.9 over questions with 1 to 16 pairs (a geometric number with mean 5), whose hits within a
question hang together (beta-binomial, correlation 0.1, 0.4, 1) or that have one pair each, as when one of N queries is
chosen; paired differences of two models, of which one is right alone in 5 to 60 % of the pairs; AUC and calibration
error of rewards that differ between questions and are better for some than for others (in fewer samples, because they
are computed anew without each question). Beside them stands the percentile bootstrap over questions. Printed are the
mean over the settings and the least.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from common.files import run_script
from eval.intervals import DIFFERENCE, SHARE, Clusters, Estimate
from eval.pair_report import auc, calibration_error

QUESTIONS = (5, 10, 30, 100)
MOST_PAIRS, PAIRS_MEAN = 16, 5
CORRELATIONS = (0.1, 0.4, 1.0)
ACCURACIES = (0.5, 0.7, 0.9)
BETTER_WORSE = ((0.05, 0.05), (0.1, 0.02), (0.3, 0.1), (0.3, 0.3), (0.6, 0.05))  # shares that one model wins, loses
DRAWS = 200  # of the bootstrap
MANY = 20_000  # questions that tell the true AUC and calibration error
FEWER = 5  # times fewer samples of figures that are computed anew without each question

Simulate = Callable[[np.random.Generator, int], tuple[Estimate, Estimate]]  # questions -> our interval, the bootstrap's


# --- what is drawn ----------------------------------------------------------------------------------------------------


def members_of(rng: np.random.Generator, count: int, many: bool = True) -> np.ndarray:
    """The question of each pair [n]."""
    sizes = np.minimum(MOST_PAIRS, rng.geometric(1 / PAIRS_MEAN, count)) if many else np.ones(count, dtype=int)
    return np.repeat(np.arange(count), sizes)


def outcomes(rng: np.random.Generator, members: np.ndarray, shares: Sequence[float], correlation: float) -> np.ndarray:
    """Which of the outcomes with these shares each pair has [n]; the shares of a question are drawn around them."""
    scatter = max((1 - correlation) / correlation, 1e-3)
    of_question = rng.dirichlet(np.array(shares) * scatter, members.max() + 1)  # [questions, outcomes]
    below = np.cumsum(of_question, axis=1)[members]
    return np.minimum((rng.random(len(members))[:, None] > below).sum(axis=1), len(shares) - 1)


def rewards(rng: np.random.Generator, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of the chosen and the rejected query of each pair, [n] each."""
    level, gap = (rng.normal(mean, spread, members.max() + 1)[members] for mean, spread in ((0, 1), (0.5, 0.8)))
    chosen, rejected = (level + side * gap / 2 + rng.normal(0, 0.7, len(members)) for side in (1, -1))
    return chosen, rejected


# --- intervals --------------------------------------------------------------------------------------------------------


def percentile_bootstrap(members: np.ndarray, of: Callable[[np.ndarray], float], rng: np.random.Generator) -> Estimate:
    """B. Efron, R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, with whole questions drawn."""
    count = members.max() + 1
    drawn = [np.bincount(rng.integers(count, size=count), minlength=count)[members] for _ in range(DRAWS)]
    low, high = np.quantile([of(weights.astype(float)) for weights in drawn], (0.025, 0.975))
    return Estimate(float(of(np.ones(len(members)))), float(low), float(high))


def simulated_mean(
    values: Sequence[float], shares: Sequence[float], within: tuple[float, float], correlation: float, many: bool = True
) -> tuple[Simulate, float]:
    """A mean of values with these shares, and the true one."""

    def simulate(rng: np.random.Generator, count: int) -> tuple[Estimate, Estimate]:
        members = members_of(rng, count, many)
        found = np.array(values)[outcomes(rng, members, shares, correlation)]
        ours = Clusters(members.tolist()).mean(found, within=within)
        return ours, percentile_bootstrap(members, lambda weights: weights @ found / weights.sum(), rng)

    return simulate, float(np.dot(values, shares))


def simulated_figure(figure: Callable) -> tuple[Simulate, float]:
    """A figure of rewards, and the true one."""

    def simulate(rng: np.random.Generator, count: int) -> tuple[Estimate, Estimate]:
        members = members_of(rng, count)
        of = figure(*rewards(rng, members))
        return Clusters(members.tolist()).statistic(of), percentile_bootstrap(members, of, rng)

    rng = np.random.default_rng(0)
    members = members_of(rng, MANY)
    return simulate, figure(*rewards(rng, members))(np.ones(len(members)))


def settings(figure: str) -> list[tuple[Simulate, float]]:
    """How a figure is simulated, with its true value, in each setting."""
    if figure == "accuracy":
        kinds = [(correlation, True) for correlation in CORRELATIONS] + [(1.0, False)]
        return [simulated_mean((0, 1), (1 - share, share), SHARE, *kind) for share, kind in product(ACCURACIES, kinds)]
    if figure == "difference":
        return [
            simulated_mean((1, -1, 0), (better, worse, 1 - better - worse), DIFFERENCE, correlation)
            for (better, worse), correlation in product(BETTER_WORSE, CORRELATIONS)
        ]
    if figure == "auc":
        return [simulated_figure(auc)]
    return [simulated_figure(lambda ones, others: lambda weights: calibration_error(ones - others, weights))]


FIGURES = ("accuracy", "difference", "auc", "calibration_error")


def holds(estimate: Estimate, truth: float) -> bool:
    return estimate.low - 1e-9 <= truth <= estimate.high + 1e-9


def coverage(figure: str, count: int, samples: int) -> list[tuple[float, float]]:
    """Share of the intervals that hold the true value, in each setting: ours, and the percentile bootstrap's."""
    rng, found = np.random.default_rng(count), []
    for simulate, truth in settings(figure):
        hits = [[holds(estimate, truth) for estimate in simulate(rng, count)] for _ in range(samples)]
        found.append(tuple(np.mean(hits, axis=0).tolist()))
    return found


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000, help="simulated evaluations of each setting")
    args = parser.parse_args(words)
    print(f"{'':17} questions   intervals: mean (least)   percentile bootstrap: mean (least)")
    for figure, count in product(FIGURES, QUESTIONS):
        samples = args.samples if figure in ("accuracy", "difference") else max(1, args.samples // FEWER)
        found = np.array(coverage(figure, count, samples))
        (mean, old_mean), (least, old_least) = found.mean(axis=0), found.min(axis=0)
        print(f"{figure:17} {count:9}   {mean:.3f} ({least:.3f})              {old_mean:.3f} ({old_least:.3f})")
        if figure != "calibration_error":  # which few questions make too high, so no interval around it is promised
            print(f"PROMISE coverage_{figure}_{count}_questions {mean:.3f} GOAL >= 0.94", flush=True)


if __name__ == "__main__":
    run_script(main)
