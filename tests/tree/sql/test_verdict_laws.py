"""What a verdict says of a query, and the laws that it keeps."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import rows_of, verdict_here
from tests.conftest import make_database
from tests.hostile_queries import counting, listed
from tree.sql.guarded import Limits
from tree.sql.sandbox import run

PATIENT = Limits(600.0, 10**9)


# --- what a verdict says --------------------------------------------------------------------------------------------


def test_reading_stops_when_a_long_result_is_proven_wrong(warehouse):
    verdict = verdict_here(warehouse, counting(5000).replace("SELECT n FROM", "SELECT -n FROM"), counting(5000))
    assert (verdict.execution.outcome, verdict.execution.more, verdict.ex, verdict.strict) == ("ok", True, False, False)
    assert verdict.execution.row_count < 5000


def test_a_long_right_result_is_read_to_its_end(warehouse):
    verdict = verdict_here(warehouse, counting(5000) + " ", counting(5000))
    assert (verdict.execution.row_count, verdict.execution.more, verdict.ex, verdict.strict) == (
        5000,
        False,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("sql", "flags"),
    [
        ("SELECT 3", {"constant"}),
        ("SELECT value FROM json_each('[3]')", {"constant"}),
        ('SELECT id FROM product WHERE name = "saw"', {"quoted_literal"}),
        ('SELECT "nme" FROM product', {"quoted_literal"}),
        ("SELECT id, date('now') FROM product", {"clock_or_random"}),
        ("SELECT id FROM product WHERE name > CURRENT_DATE", {"clock_or_random"}),
        ("SELECT id FROM product ORDER BY random() LIMIT 1", {"clock_or_random"}),
        ("SELECT id FROM product LIMIT 1", {"limit_without_order"}),
        ("SELECT id FROM (SELECT id FROM product LIMIT 2) ORDER BY id", {"limit_without_order"}),
        ("SELECT name FROM product WHERE id = 99", {"both_empty"}),
        ("SELECT id FROM product", set()),
        ("SELECT COUNT(*) FROM product", set()),
        ("SELECT id FROM product ORDER BY id LIMIT 1", set()),
        ('SELECT id AS "the id" FROM product ORDER BY "the id"', set()),
        ('SELECT "Unit Price (EUR)" FROM "product"', set()),
        ('SELECT p."NAME" FROM Product AS "p"', set()),
        ('WITH "dear things" AS (SELECT id FROM product) SELECT id FROM "dear things"', set()),
        ('SELECT "rowid" FROM product', set()),
        ("SELECT '\"not a name\"', 'now and then' FROM product", set()),
        ('SELECT "Länge" FROM "Größe"', set()),
        ("SELECT name FROM tool", set()),
        ("SELECT body FROM note WHERE note MATCH 'saw'", set()),
        ('SELECT t.name FROM (SELECT name FROM product) AS "t" JOIN "order" ON 1', set()),
    ],
)
def test_flags(warehouse, sql, flags):
    verdict = verdict_here(warehouse, sql, "SELECT name FROM product WHERE id = 98")
    assert verdict.execution.outcome in ("ok", "empty"), verdict.execution.error
    assert set(verdict.execution.flags) == flags


def test_a_table_named_in_other_letters_is_no_constant(warehouse):
    execution, _ = run(str(warehouse), "SELECT COUNT(*) FROM PRODUCT", PATIENT)
    assert "constant" not in execution.flags


# --- the laws of the verdict ----------------------------------------------------------------------------------------

values = st.one_of(
    st.sampled_from([0, 1, 1.0, -0.0, "a", "A", "1", "", None, 2**53, 2.0**53, 2**53 + 1]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8),
)
tables = st.lists(st.tuples(values, values), max_size=6)
related = tables.flatmap(
    lambda rows: st.tuples(st.just(rows), st.lists(st.sampled_from(rows), max_size=8) if rows else tables)
)
# a second table that is unrelated, or drawn from the first one's rows with other order and multiplicity
pairs_of_tables = st.one_of(st.tuples(tables, tables), related)


def literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value).replace("inf", "9e999")


def values_query(rows: list[tuple]) -> str:
    if not rows:
        return "SELECT * FROM (VALUES (1, 1)) WHERE 0"
    return "SELECT * FROM (VALUES " + listed(f"({literal(a)}, {literal(b)})" for a, b in rows) + ")"


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database for many examples."""
    return make_database(tmp_path_factory.mktemp("laws") / "shop.sqlite")


@given(pairs_of_tables)
def test_ex_is_equality_of_sets_and_strict_of_multisets(steady, both):
    sql, gold = map(values_query, both)
    rows, gold_rows = rows_of(steady, sql), rows_of(steady, gold)
    verdict = verdict_here(steady, sql, gold)
    assert verdict.ex == (set(rows) == set(gold_rows))
    assert verdict.strict == (Counter(rows) == Counter(gold_rows))
    assert verdict.strict <= verdict.ex
    assert ("both_empty" in verdict.execution.flags) == (not rows and not gold_rows)


@given(tables, st.sampled_from(["", " ORDER BY 1", " ORDER BY 2 DESC", " LIMIT 3"]))
def test_a_query_matches_itself(steady, rows, ending):
    verdict = verdict_here(steady, values_query(rows) + ending, values_query(rows) + ending)
    assert verdict.ex
    assert verdict.strict


@given(tables, st.randoms(use_true_random=False))
def test_order_counts_only_when_the_outermost_gold_query_orders(steady, rows, random):
    shuffled = random.sample(rows, len(rows))
    sql, gold = values_query(shuffled), values_query(rows)
    inner = f"SELECT * FROM ({gold} ORDER BY 1, 2)"
    for unordered in (gold, inner):
        verdict = verdict_here(steady, sql, unordered)
        assert (verdict.ex, verdict.strict) == (True, True)
    verdict = verdict_here(steady, sql, f"{gold} ORDER BY 1, 2")
    assert verdict.ex
    assert verdict.strict == (rows_of(steady, sql) == rows_of(steady, f"{gold} ORDER BY 1, 2"))


@given(tables.filter(bool), st.integers(1, 3))
def test_repetition_counts_for_strict_only(steady, rows, times):
    verdict = verdict_here(steady, values_query(rows * times), values_query(rows))
    assert (verdict.ex, verdict.strict) == (True, times == 1)
