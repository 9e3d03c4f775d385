"""Labels at the ends of lines: none lies upon another, and none moves without need."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.drawing import spread

HEIGHTS = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(HEIGHTS, st.floats(0.01, 0.3))
def test_labels_are_apart_in_the_order_of_their_lines(heights, gap):
    moved = spread(heights, gap)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    assert all(moved[upper] - moved[lower] >= gap - 1e-9 for lower, upper in zip(order, order[1:], strict=False))
    assert sum(moved) == pytest.approx(sum(heights))  # as far up as down


@given(HEIGHTS)
def test_labels_that_are_apart_stay(heights):
    apart = [height + 2 * place for place, height in enumerate(heights)]
    assert spread(apart, 1) == pytest.approx(apart)
