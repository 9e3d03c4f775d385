"""Facts about queries that failed or returned nothing: they are so, and they name what is there."""

import sqlite3
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import verdict_here
from tests.shop import make_database
from tree.sql.facts import comparisons, facts_about, tables_used
from tree.sql.guarded import Limits
from tree.sql.results import Execution
from tree.sql.tokens import tokens

GOLD = "SELECT name FROM product"
COLUMNS = 'Columns of product: id, name, "Unit Price (EUR)", category.'
ORDERED = 'Columns of "order" (o): id, product_id, day, pieces.'
LIKE_SAW = "No row of product has name = '{}'; values like it: 'saw'."


@pytest.mark.parametrize(
    ("sql", "facts"),
    [
        ("SELECT nme FROM product", ("No table has a column nme.", "Names like nme: product.name.", COLUMNS)),
        (
            'SELECT P.pieces FROM product AS P JOIN "order" o ON o.product_id = P.id',
            ('Tables with a column pieces: "order".', COLUMNS.replace(":", " (P):", 1), ORDERED),
        ),
        ("SELECT pieces FROM product", ('Tables with a column pieces: "order".', COLUMNS)),
        ("SELECT * FROM products", ("Names like products: product.", 'Tables: product, "order".')),
        ('SELECT id FROM product, "order"', ('Tables with a column id: product, "order".',)),
        ("SELECT name FROM product WHERE name = 'Saw'", (LIKE_SAW.format("Saw"),)),
        ("SELECT name FROM product WHERE 'x' <> name AND name = 'Saw' AND id = 1", (LIKE_SAW.format("Saw"),)),
        ('SELECT p.name FROM product p WHERE p.name = "Saws"', (LIKE_SAW.format("Saws"),)),
        (
            "SELECT name FROM product WHERE category = 'tool' AND name IN ('saw', 'nails') AND id = 7",
            ("No row of product has name = 'nails'; values like it: 'nail'.",),
        ),
        (
            "SELECT name FROM product WHERE name LIKE '%hammer%'",
            ("No row of product has name LIKE '%hammer%'; values of name: 'saw', 'nail', 'Säge'.",),
        ),
        ("SELECT name FROM product WHERE name = 'saw' AND id = 2", ()),
        ("SELECT name FROM product WHERE id = '77'", ("No row of product has id = '77'.",)),
        ("SELECT name FROM product WHERE name NOT IN ('saw', 'nail', 'Säge') AND name <> 'x'", ()),
        ("SELECT name FROM product", ()),
        ("SELECT name FROM product WHERE", ()),
    ],
)
def test_facts_name_what_is_there(shop, sql, facts):
    assert verdict_here(shop, sql, GOLD).execution.facts == facts


def test_a_search_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
    path = make_database(tmp_path / "big.sqlite", "CREATE TABLE t (a TEXT);")
    with sqlite3.connect(path) as connection:
        connection.executemany("INSERT INTO t VALUES (?)", ((f"value {number}",) for number in range(30_000)))
    monkeypatch.setattr("tree.sql.facts.LOOKUP", Limits(timeout=2.0, steps=20_000))
    assert facts_about(str(path), "SELECT a FROM t WHERE a = 'x'", Execution("empty")) == ()


def test_long_lists_and_values_are_cut(tmp_path):
    names = ", ".join(f"column_{number} TEXT" for number in range(200))
    path = make_database(
        tmp_path / "wide.sqlite", f"CREATE TABLE wide ({names}); INSERT INTO wide (column_0) VALUES ('{'y' * 150}')"
    )
    [_, _, columns] = verdict_here(path, "SELECT column_x FROM wide", "SELECT 1").execution.facts
    assert columns.startswith("Columns of wide: column_0, ") and columns.endswith("column_39, ….")
    [value] = verdict_here(path, "SELECT 1 FROM wide WHERE column_0 = 'yy'", "SELECT 1").execution.facts
    assert len(value) < 200 and "yyy…'" in value


@pytest.mark.parametrize("operator", ["IN", "NOT IN", "= ("])
def test_long_lists_of_texts_take_linear_time(operator):
    """Ten times as long takes about ten times as long, not a hundred times: steps are counted, not seconds."""

    def steps(count: int) -> int:
        sql = f"SELECT a FROM t WHERE a {operator} (" + ", ".join(f"'{number}'" for number in range(count)) + ")"
        taken = 0

        def count_line(frame, event, argument):
            nonlocal taken
            taken += event == "line"
            return count_line

        sys.settrace(count_line)
        try:
            list(comparisons(sql, {"t": ["a"]}))
        finally:
            sys.settrace(None)
        return taken

    assert steps(1000) < 15 * steps(100)


def test_names_and_values_that_are_not_unicode_are_told(tmp_path):
    path = make_database(
        tmp_path / "odd.sqlite", "CREATE TABLE t (a TEXT); INSERT INTO t VALUES (CAST(x'ff6162' AS TEXT));"
    )
    [fact] = verdict_here(path, "SELECT a FROM t WHERE a = 'ab'", "SELECT 1").execution.facts
    assert fact.startswith("No row of t has a = 'ab'; values") and fact.encode()


@given(st.text(max_size=60), st.text("aAbB'\"`[]().,= \n;%", max_size=60))
def test_any_text_can_be_looked_at(strange, sqlish):
    columns = {"a": ["b", "A'"], "B": ["a"]}
    for sql in (strange, sqlish, f"SELECT * FROM a WHERE b = {sqlish}", f"SELECT * FROM a x WHERE x.b IN ({sqlish}"):
        found = list(comparisons(sql, columns))
        assert all(one.column in columns[one.table] for one in found)
        assert set(tables_used(list(tokens(sql)), columns)) <= set(columns)
