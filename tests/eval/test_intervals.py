"""Intervals over questions: what must hold always, what is degenerate, and how often they hold the true value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import interval_coverage
from eval.intervals import DIFFERENCE, Clusters, unseen, wilson


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=30))
def test_an_interval_holds_its_figure_and_lies_within_the_range(items):
    names, values = zip(*items, strict=True)
    estimate = Clusters(names).mean(values)
    assert estimate.value == pytest.approx(np.mean(values))
    if len(set(names)) == 1:
        assert estimate.low is estimate.high is None
    else:
        assert -1e-9 <= estimate.low <= estimate.value <= estimate.high <= 1 + 1e-9
        assert estimate.high > estimate.low  # a few questions never tell for certain


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1, 1), st.booleans()), min_size=2, max_size=30))
def test_a_mean_is_a_statistic(items):
    """Computed from sums, and by leaving out one question after the other."""
    names, values, where = (np.array(column) for column in zip(*items, strict=True))
    where[names == names[0]] = True
    chosen = Clusters(names[where].tolist())
    whole = Clusters(names.tolist()).mean(values, where, DIFFERENCE)
    expected = chosen.statistic(lambda weights: float(weights @ values[where] / weights.sum()), DIFFERENCE)
    assert whole.value == pytest.approx(expected.value)
    for end in ("low", "high"):
        assert getattr(whole, end) == pytest.approx(getattr(expected, end), abs=1e-6)


def test_what_belongs_together_counts_once():
    """A hundred copies of each of ten questions say no more than the ten; taken apart, they would."""
    values = [float(number % 2) for number in range(10)]
    alone = Clusters(range(10)).mean(values)
    copied = Clusters([number for number in range(10) for _ in range(100)]).mean(np.repeat(values, 100))
    apart = Clusters(range(1000)).mean(np.repeat(values, 100))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert apart.high - apart.low < (alone.high - alone.low) / 5


def test_many_questions_with_one_item_each_have_wilsons_interval():
    hits = [1.0] * 300 + [0.0] * 700
    estimate = Clusters(range(1000)).mean(hits)
    assert (estimate.low, estimate.high) == pytest.approx(wilson(0.3, 1000), abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_questions_that_are_all_alike_leave_room_for_others(value):
    for count, least in ((2, 0.84), (10, 0.30), (100, 0.03)):
        estimate = Clusters(range(count)).mean([value] * count)
        assert estimate.low == pytest.approx(value - value * unseen(count))
        assert estimate.high == pytest.approx(value + (1 - value) * unseen(count))
        assert unseen(count) > least
    margins = Clusters(range(9)).mean([value] * 9, within=None)
    assert margins.low is margins.high is None  # without a range nothing can be said


def test_a_perfect_order_is_not_certain():
    """AUC 1, whichever question is left out: the bootstrap's interval would have no width."""
    estimate = Clusters(range(10)).statistic(lambda weights: 1.0)
    assert estimate.low == pytest.approx(1 - unseen(10)) and estimate.high == 1


@pytest.mark.parametrize("figure", ["accuracy", "difference"])
@pytest.mark.parametrize("count", [5, 10, 30, 100])
def test_intervals_cover_what_they_should(figure, count, monkeypatch):
    """Over settings with few and many pairs per question, rare and common hits."""
    monkeypatch.setattr(interval_coverage, "DRAWS", 2)  # of what the bench compares with, which takes the time
    ours = [mine for mine, _ in interval_coverage.coverage(figure, count, samples=80)]
    assert np.mean(ours) >= 0.92 and min(ours) >= 0.75


counts = st.integers(1, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(counts)
def test_the_interval_contains_the_share_and_stays_within_0_and_1(case):
    count, total = case
    low, high = wilson(count / total, total)
    assert 0 <= low <= count / total <= high <= 1 and low < high
    mirrored = wilson(1 - count / total, total)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(counts, st.integers(2, 100))
def test_more_questions_of_the_same_share_narrow_the_interval(case, times):
    count, total = case
    low, high = wilson(count / total, total)
    narrow_low, narrow_high = wilson(count / total, times * total)
    assert narrow_high - narrow_low < high - low


def test_the_interval_is_wilsons():
    # a published example: R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
