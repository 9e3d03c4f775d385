"""How often the 95 % intervals of evaluate.py hold the true value, by simulation, over numbers of questions.

    python bench/interval_coverage.py

Accuracies of 0.5, 0.7 and 0.9 over questions with 1 to 16 pairs (a geometric number with mean 5), whose hits within a
question hang together (beta-binomial, correlation 0.1, 0.4, 1) or that have one pair each, as when one of N queries is
chosen; and paired differences of two models, of which one is right alone in 5 to 60 % of the pairs. Beside them stands
the percentile bootstrap over questions. Printed are the mean over the settings and the least.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval.bootstrap import DIFFERENCE, SHARE, Clusters, Estimate  # noqa: E402
from tree.files import run_script  # noqa: E402

QUESTIONS = (5, 10, 30, 100)
MOST_PAIRS, PAIRS_MEAN = 16, 5
CORRELATIONS = (0.1, 0.4, 1.0)
ACCURACIES = (0.5, 0.7, 0.9)
BETTER_WORSE = ((0.05, 0.05), (0.1, 0.02), (0.3, 0.1), (0.3, 0.3), (0.6, 0.05))  # shares that one model wins, loses
DRAWS = 300  # of the bootstrap

Sample = tuple[np.ndarray, np.ndarray]  # values [n], numbers of their questions [n]


# --- what is drawn ----------------------------------------------------------------------------------------------------


def sizes(rng: np.random.Generator, count: int, many: bool) -> np.ndarray:
    """Pairs of each question."""
    return np.minimum(MOST_PAIRS, rng.geometric(1 / PAIRS_MEAN, count)) if many else np.ones(count, dtype=int)


def outcomes(rng: np.random.Generator, count: int, shares: Sequence[float], correlation: float, many: bool) -> Sample:
    """Which of the outcomes with these shares each pair has; the shares of a question are drawn around them."""
    scatter = max((1 - correlation) / correlation, 1e-3)
    of_question = rng.dirichlet(np.array(shares) * scatter, count)  # [count, outcomes]
    members = np.repeat(np.arange(count), sizes(rng, count, many))
    below = np.cumsum(of_question, axis=1)[members]
    return np.minimum((rng.random(len(members))[:, None] > below).sum(axis=1), len(shares) - 1), members


def accuracies() -> list[tuple[Callable, float]]:
    """How values are drawn, with the true mean, in each setting."""

    def setting(accuracy: float, correlation: float, many: bool):
        def draw(rng: np.random.Generator, count: int) -> Sample:
            found, members = outcomes(rng, count, (1 - accuracy, accuracy), correlation, many)
            return found.astype(float), members

        return draw, accuracy

    kinds = [(correlation, True) for correlation in CORRELATIONS] + [(1.0, False)]
    return [setting(accuracy, *kind) for accuracy, kind in product(ACCURACIES, kinds)]


def paired_differences() -> list[tuple[Callable, float]]:
    def setting(better: float, worse: float, correlation: float):
        def draw(rng: np.random.Generator, count: int) -> Sample:
            found, members = outcomes(rng, count, (better, worse, 1 - better - worse), correlation, True)
            return np.array([1.0, -1.0, 0.0])[found], members

        return draw, better - worse

    return [setting(*shares, correlation) for shares, correlation in product(BETTER_WORSE, CORRELATIONS)]


FIGURES = {"accuracy": (accuracies, SHARE), "difference": (paired_differences, DIFFERENCE)}


# --- intervals --------------------------------------------------------------------------------------------------------


def percentile_bootstrap(values: np.ndarray, members: np.ndarray, rng: np.random.Generator) -> Estimate:
    """B. Efron, R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, with whole questions drawn."""
    count = members.max() + 1
    sums, counts = np.bincount(members, values), np.bincount(members)
    drawn = rng.integers(count, size=(DRAWS, count))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (0.025, 0.975))
    return Estimate(float(values.mean()), float(low), float(high))


def holds(estimate: Estimate, truth: float) -> bool:
    return estimate.low - 1e-9 <= truth <= estimate.high + 1e-9


def coverage(figure: str, count: int, samples: int, seed: int = 0) -> list[tuple[float, float]]:
    """Share of the intervals that hold the true value, in each setting: ours, and the percentile bootstrap's."""
    settings, within = FIGURES[figure]
    rng, found = np.random.default_rng([seed, count]), []
    for draw, truth in settings():
        hits = []
        for _ in range(samples):
            values, members = draw(rng, count)
            ours = Clusters(members.tolist()).mean(values, within=within)
            hits.append((holds(ours, truth), holds(percentile_bootstrap(values, members, rng), truth)))
        found.append(tuple(np.mean(hits, axis=0).tolist()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2_000, help="simulated evaluations of each setting")
    args = parser.parse_args()
    print(f"{'':12} questions   intervals: mean (least)   percentile bootstrap: mean (least)")
    for figure in FIGURES:
        for count in QUESTIONS:
            found = np.array(coverage(figure, count, args.samples))
            (mean, old_mean), (least, old_least) = found.mean(axis=0), found.min(axis=0)
            print(f"{figure:12} {count:9}   {mean:.3f} ({least:.3f})              {old_mean:.3f} ({old_least:.3f})")
            print(f"PROMISE coverage_{figure}_{count}_questions {mean:.3f} GOAL >= 0.94", flush=True)


if __name__ == "__main__":
    run_script(main)
