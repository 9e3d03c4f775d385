"""Figures on preference pairs and their intervals: against hand-made cases and against what must hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from eval.bootstrap import Bootstrap
from eval.pair_report import PairReport, auc, calibration_error
from reward.data import PreferencePair, Turn


def pair(question_id: int, chosen="SELECT 1", rejected="SELECT 22", **columns) -> PreferencePair:
    content = {"db_id": "shop", "relation": "sibling", "chosen_dist": 0, "rejected_dist": None} | columns
    return PreferencePair((Turn("user", f"question {question_id}"),), chosen, rejected, question_id, **content)


def test_figures_of_a_few_pairs():
    pairs = [
        pair(0),
        pair(0, rejected_dist=1),
        pair(1, difficulty="simple"),
        pair(2, chosen="SELECT 333", db_id="store"),
    ]
    report = PairReport(pairs)
    figures = report.figures([3, 1, 0, 2], [1, 1, 1, 0])
    assert figures["accuracy"]["value"] == pytest.approx(2.5 / 4) and figures["ties"] == 1  # a tie is half
    assert figures["mean_margin"]["value"] == pytest.approx(3 / 4)
    assert figures["by_distance_gap"]["1"] == {"pairs": 1, "accuracy": {"value": 0.5, "low": 0.5, "high": 0.5}}
    assert figures["by_distance_gap"]["never"]["pairs"] == 3
    assert {name: group["pairs"] for name, group in figures["by_database"].items()} == {"shop": 3, "store": 1}
    assert figures["by_difficulty"] == {"simple": {"pairs": 1, "accuracy": {"value": 0, "low": 0, "high": 0}}}
    assert report.baselines()["shorter wins"]["accuracy"]["value"] == pytest.approx(3 / 4)
    assert report.difference(figures["margins"], figures["margins"]).to_json() == {"value": 0, "low": 0, "high": 0}


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.integers(1, 3)), min_size=1, max_size=20))
def test_auc_equals_that_of_scikit_learn(sides):
    chosen, rejected, weights = (np.array(side, float) for side in zip(*sides, strict=True))
    labels, rewards = np.repeat((1, 0), len(sides)), np.concatenate([chosen, rejected])
    expected = roc_auc_score(labels, rewards, sample_weight=np.tile(weights, 2))
    assert auc(chosen, rejected)(weights) == pytest.approx(expected)


def test_calibration_error_of_a_model_that_is_sure_and_wrong_half_of_the_time():
    margins = np.array([20.0, -20.0] * 10)
    assert calibration_error(margins, np.ones(20)) == pytest.approx(0.5, abs=1e-6)
    assert calibration_error(np.full(20, 1e-9), np.ones(20)) == pytest.approx(0.5, abs=1e-6)  # always right, never sure


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=30))
def test_intervals_lie_within_the_values_and_repeat(items):
    clusters, values = zip(*items, strict=True)
    estimate = Bootstrap(clusters, draws=200).mean(values)
    assert min(values) - 1e-9 <= estimate.low <= estimate.high <= max(values) + 1e-9
    assert estimate.value == pytest.approx(np.mean(values))
    assert estimate == Bootstrap(clusters, draws=200).mean(values)


def test_what_belongs_together_is_drawn_together():
    """A hundred copies of each of ten questions say no more than the ten; taken apart, they would."""
    values = [float(number % 2) for number in range(10)]
    alone = Bootstrap(range(10)).mean(values)
    copied = Bootstrap([number for number in range(10) for _ in range(100)]).mean(np.repeat(values, 100))
    apart = Bootstrap(range(1000)).mean(np.repeat(values, 100))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert apart.high - apart.low < (alone.high - alone.low) / 5


def test_intervals_cover_what_they_should():
    """Of 200 samples of 60 fair coins, about 95 % of the intervals hold 0.5."""
    rng = np.random.default_rng(1)
    estimates = [Bootstrap(range(60), draws=300).mean(rng.integers(0, 2, 60)) for _ in range(200)]
    assert 0.88 <= np.mean([estimate.low <= 0.5 <= estimate.high for estimate in estimates]) <= 0.99
