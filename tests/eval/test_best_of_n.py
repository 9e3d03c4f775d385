"""Choosing one of N candidates: each way against what it is by definition, and what must hold for all."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import best_of_n
from eval.best_of_n import (
    EMPTY,
    FAILED,
    ROWS,
    WITH_REWARD,
    WITHOUT_REWARD,
    Candidates,
    accuracy,
    choice,
    choice_report,
    sizes,
    subsets_of,
)

RULES = WITHOUT_REWARD | WITH_REWARD


def candidates(*rows: tuple[int, int, int, float]) -> Candidates:
    tiers, groups, correct, rewards = zip(*rows, strict=True)
    return Candidates(np.array(tiers), np.array(groups), np.array(correct, float), np.array(rewards, float))


@st.composite
def any_candidates(draw):
    """Results decide: candidates with the same one are in the same tier and right together."""
    results = draw(st.lists(st.tuples(st.sampled_from((FAILED, EMPTY, ROWS)), st.booleans()), min_size=1, max_size=4))
    places = draw(st.lists(st.integers(0, len(results) - 1), min_size=1, max_size=7))
    rewards = [draw(st.integers(-3, 3)) for _ in places]
    return candidates(
        *(
            (results[place][0], place, int(results[place][1] and results[place][0] != FAILED), reward)
            for place, reward in zip(places, rewards, strict=True)
        )
    )


@given(any_candidates(), st.integers(1, 8))
def test_no_choice_beats_the_oracle_and_one_candidate_leaves_none(known, size):
    oracle = accuracy(known, RULES["oracle"], size)
    for rule in RULES.values():
        assert accuracy(known, rule, size) <= oracle + 1e-12
        assert accuracy(known, rule, 1) == pytest.approx(known.correct.mean())


@given(any_candidates(), st.integers(1, 7), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(known, size, random):
    order = list(range(len(known.tiers)))
    random.shuffle(order)
    other = known.take(np.array(order))
    for rule in RULES.values():
        assert accuracy(known, rule, size) == pytest.approx(accuracy(other, rule, size))


@given(any_candidates(), st.integers(1, 7))
def test_reward_equals_its_definition(known, size):
    """The mean, over all subsets, of how many of the highest rewarded are right."""
    size, values = min(size, len(known.tiers)), []
    for subset in combinations(range(len(known.tiers)), size):
        best = max(known.rewards[place] for place in subset)
        values.append(np.mean([known.correct[place] for place in subset if known.rewards[place] == best]))
    assert accuracy(known, RULES["reward"], size) == pytest.approx(np.mean(values))


@given(any_candidates(), st.floats(-50, 50))
def test_only_differences_of_rewards_matter(known, shift):
    moved = Candidates(known.tiers, known.groups, known.correct, known.rewards + round(shift))
    for rule in WITH_REWARD.values():
        assert accuracy(known, rule, 4) == pytest.approx(accuracy(moved, rule, 4))


def test_what_each_way_chooses():
    known = candidates(
        (ROWS, 0, 0, 1.0),  # the majority of those that return rows
        (ROWS, 0, 0, 0.0),
        (ROWS, 1, 1, 2.5),  # right, and heavier than those two together
        (EMPTY, 2, 0, 3.0),  # the majority returns nothing
        (EMPTY, 2, 0, 3.0),
        (EMPTY, 2, 0, 3.0),
        (FAILED, 3, 0, 9.0),
        (FAILED, 3, 0, 9.0),
    )
    expected = {"reward": 6, "executes_reward": 2, "reward_vote": 2, "oracle": 2}
    expected |= {"majority_vote": 3, "executes_vote": 0, "executes": 0}
    assert {name: choice(known, RULES[name]) for name in expected} == expected


def test_failures_have_no_vote_however_many():
    known = candidates((FAILED, 0, 0, 0.0), (FAILED, 0, 0, 0.0), (ROWS, 1, 1, -5.0))
    assert all(accuracy(known, RULES[way], 3) == 1 for way in ("majority_vote", "executes_vote", "reward_vote"))


@given(any_candidates(), st.integers(1, 7))
def test_a_vote_with_equal_rewards_is_the_vote_without(known, size):
    equal = Candidates(known.tiers, known.groups, known.correct, np.full(len(known.tiers), 0.3))
    assert accuracy(equal, RULES["reward_vote"], size) == pytest.approx(accuracy(known, RULES["executes_vote"], size))


def test_a_question_without_candidates_is_wrong_and_has_no_choice():
    nothing = Candidates(*(np.zeros(0) for _ in range(4)))
    assert all(accuracy(nothing, rule, 8) == 0 and choice(nothing, rule) is None for rule in RULES.values())


def test_subsets_are_all_or_drawn_without_repeats(monkeypatch):
    assert len(subsets_of(8, 4)) == comb(8, 4)
    monkeypatch.setattr(best_of_n, "SUBSETS", 50)
    drawn = subsets_of(16, 8)
    assert drawn.shape == (50, 8) and all(len(set(row)) == 8 for row in drawn.tolist())
    assert (drawn == subsets_of(16, 8)).all()


def test_drawn_subsets_estimate_what_all_subsets_give(monkeypatch):
    rng = np.random.default_rng(0)
    known = candidates(
        *((ROWS, int(g), int(g == 0), r) for g, r in zip(rng.integers(3, size=12), rng.normal(size=12), strict=True))
    )
    monkeypatch.setattr(best_of_n, "SUBSETS", 10_000)
    exact = accuracy(known, RULES["reward_vote"], 6)
    monkeypatch.setattr(best_of_n, "SUBSETS", 400)
    assert accuracy(known, RULES["reward_vote"], 6) == pytest.approx(exact, abs=0.08)


def test_sizes_double_and_end_with_all():
    assert sizes(1) == [1] and sizes(8) == [1, 2, 4, 8] and sizes(12) == [1, 2, 4, 8, 12]


def test_differences_are_those_of_the_figures_at_every_number():
    one = candidates((ROWS, 0, 0, 0.0), (EMPTY, 1, 0, 3.0), (EMPTY, 1, 0, 2.0), (ROWS, 2, 1, 1.0))
    other = candidates((FAILED, 0, 0, 5.0), (ROWS, 1, 1, 1.0), (ROWS, 1, 1, 0.0), (ROWS, 2, 0, 2.0))
    report = choice_report([one, other], {"adapter": [one, other]})
    assert report["sizes"] == [1, 2, 4] and report["first"]["value"] == 0
    ex = {(way["choose"], way["adapter"]): way["ex"] for way in report["ways"]}
    assert {name for name, _ in ex} == set(RULES)
    for way in WITH_REWARD:
        for reference in ("majority_vote", "executes_vote", "first"):
            for number in ("1", "2", "4"):
                less = ex[reference, ""][number]["value"] if reference != "first" else 0
                found = report["differences"][f"{way} (adapter) minus {reference}"][number]["value"]
                assert found == pytest.approx(ex[way, "adapter"][number]["value"] - less, abs=2e-6)  # rounded
    assert ex["executes_vote", ""]["4"]["value"] == 0.75 and ex["majority_vote", ""]["4"]["value"] == 0.5
