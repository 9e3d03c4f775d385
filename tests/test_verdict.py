"""Whole results of candidates: equal just when BIRD's rule says so, and read to their end."""

from hypothesis import example, given
from hypothesis import strategies as st

from tree.gold_cache import GoldCache
from tree.sandbox import Limits
from tree.verdict import Result, observe, rows_digest

VALUES = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=3), st.binary(max_size=3)
)
CLOSE = st.sampled_from([0, -0.0, 1, 1.0, "1", b"1", 2**53, float(2**53), None, "None", "\n", "', '"])
ROWS = st.lists(st.tuples(VALUES | CLOSE, CLOSE), max_size=4)


@given(ROWS, ROWS)
@example([(1, 0), (1, 0)], [(1.0, -0.0)])
@example([("1", 0)], [(1, 0)])
def test_digests_are_equal_just_when_the_sets_are(one, other):
    assert (rows_digest(one) == rows_digest(other)) == (set(one) == set(other))


@given(st.lists(st.tuples(CLOSE, CLOSE), max_size=5), st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(rows, random):
    shuffled = rows * 2
    random.shuffle(shuffled)
    assert rows_digest(rows) == rows_digest(shuffled)


def test_observing_a_query(shop):
    def result(sql: str, gold: str) -> Result:
        return observe(str(shop), sql, gold, Limits(5.0, 10**8), GoldCache(None))

    gold = "SELECT name FROM product"
    right, wrong = result('SELECT name AS "Name" FROM product ORDER BY 1', gold), result("SELECT id FROM product", gold)
    assert (right.ex, right.outcome, wrong.ex) == (True, "ok", False) and right.digest != wrong.digest
    assert result(gold, "") == Result("ok", right.digest, None)
    assert result("SELECT nothing", gold) == Result("error", "", False) and result("", "").outcome == "no_sql"
    assert result(gold, "SELECT nothing").ex is None  # gold does not run
    # wrong from the first row on, and longer than what `judge` reads of such a result
    many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n"
    assert result(many.format(3000), gold).digest != result(many.format(2999), gold).digest
