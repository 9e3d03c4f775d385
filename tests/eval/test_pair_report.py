"""Figures on preference pairs and their intervals: against hand-made cases and against what must hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from common.preference import PreferencePair, user_prompt
from eval.evaluation_report import markdown_page
from eval.intervals import unseen
from eval.pair_report import auc, calibration_error, pair_report
from reward.metrics import wins


def pair(question_id: int, chosen="SELECT 1", rejected="SELECT 22", **columns) -> PreferencePair:
    content = {"db_id": "shop", "relation": "sibling", "chosen_dist": 0, "rejected_dist": None} | columns
    return PreferencePair(user_prompt(f"question {question_id}"), chosen, rejected, question_id, **content)


def rewards(pairs: list[PreferencePair], chosen: list[float], rejected: list[float]) -> dict:
    """What the queries of these pairs get, by prompt."""
    ones = {(pair.prompt, pair.chosen): value for pair, value in zip(pairs, chosen, strict=True)}
    return ones | {(pair.prompt, pair.rejected): value for pair, value in zip(pairs, rejected, strict=True)}


def test_figures_of_a_few_pairs():
    pairs = [
        pair(0),
        pair(0, chosen="SELECT 5", rejected="SELECT 55", rejected_dist=1),
        pair(1, difficulty="simple"),
        pair(2, chosen="SELECT 333", db_id="store"),
    ]
    given_rewards = rewards(pairs, [3, 1, 0, 2], [1, 1, 1, 0])
    report = pair_report(pairs, {"one": given_rewards, "other": given_rewards})
    figures = report["adapters"]["one"]
    assert figures["accuracy"]["value"] == pytest.approx(2.5 / 4) and figures["ties"] == 1  # a tie is half
    assert figures["mean_margin"]["value"] == pytest.approx(3 / 4) and figures["margins"] == [2, 0, -1, 2]
    # of one question there is no interval
    assert figures["by_distance_gap"]["1"] == {"pairs": 1, "accuracy": {"value": 0.5, "low": None, "high": None}}
    assert figures["by_distance_gap"]["never"]["pairs"] == 3
    assert {name: group["pairs"] for name, group in figures["by_database"].items()} == {"shop": 3, "store": 1}
    assert figures["by_difficulty"] == {"simple": {"pairs": 1, "accuracy": {"value": 0, "low": None, "high": None}}}
    assert report["baselines"]["shorter wins"]["accuracy"]["value"] == pytest.approx(3 / 4)
    assert report["baselines"]["random"]["accuracy"] == {"value": 0.5, "low": 0.5, "high": 0.5}  # not estimated
    # that three questions show no difference does not say that there is none
    expected = {"value": 0, "low": -unseen(3), "high": unseen(3)}
    assert report["differences"] == {"other minus one": pytest.approx(expected, abs=1e-6)}


def test_one_question_is_reported_without_intervals():
    pairs = [pair(0), pair(0, chosen="SELECT 5", rejected="SELECT 55", rejected_dist=2)]
    report = pair_report(pairs, {"a": rewards(pairs, [1, 0], [0, 0])})
    for figure in ("accuracy", "auc", "mean_margin", "calibration_error"):
        assert report["adapters"]["a"][figure]["low"] is report["adapters"]["a"][figure]["high"] is None
    whole = {"manifest": {"command": ["evaluate.py"], "started": "now"}, "pairs": report}
    assert "0.750 [too few]" in markdown_page(whole, "report.png")


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.integers(1, 3)), min_size=1, max_size=20))
def test_auc_equals_that_of_scikit_learn(sides):
    chosen, rejected, weights = (np.array(side, float) for side in zip(*sides, strict=True))
    labels, both = np.repeat((1, 0), len(sides)), np.concatenate([chosen, rejected])
    expected = roc_auc_score(labels, both, sample_weight=np.tile(weights, 2))
    assert auc(chosen, rejected)(weights) == pytest.approx(expected)


def test_calibration_error_of_a_model_that_is_sure_and_wrong_half_of_the_time():
    margins = np.array([20.0, -20.0] * 10)
    assert calibration_error(margins, np.ones(20)) == pytest.approx(0.5, abs=1e-6)
    assert calibration_error(np.full(20, 1e-9), np.ones(20)) == pytest.approx(0.5, abs=1e-6)  # always right, never sure


@given(st.lists(st.floats(-9, 9), min_size=1))
def test_a_pair_counts_the_same_by_itself_and_among_others(differences):
    assert wins(np.array(differences)).tolist() == [wins(one) for one in differences]
