"""What the text of a query tells without running it: the clock, chance, order, constants."""

import re
import sqlite3

import pytest

from tree.sql.canonical import canonical_sql
from tree.sql.query_text import clock_or_random, limit_without_order, orders_rows, returns_constants
from tree.sql.tokens import KEYWORDS, first_word


def test_there_are_as_many_keywords_as_sqlite_has():
    assert len(KEYWORDS) == 147


def test_a_long_text_is_read():
    for piece in ("1", "''", "''''x", "/*", "((", "date(", "[a", "x'", "SELECT 'a' ", "$a::", "`"):
        text = piece * 5_000
        assert canonical_sql(canonical_sql(text)) == canonical_sql(text)
        clock_or_random(text), limit_without_order(text), orders_rows(text), first_word(text)


def test_first_word():
    assert [first_word(sql) for sql in ("", " ", "-- a\n\ufeff/* b */pragma x", ";SELECT", "--")] == [
        *("", "", "PRAGMA", ";", "")
    ]


CLOCK = [
    *("SELECT date('now')", 'SELECT date("NOW")', "SELECT DATE ( /* x */ 'Now' )", "SELECT strftime('%Y', \"now\")"),
    *("SELECT date()", "SELECT time( )", "SELECT datetime(--\n)", "SELECT julianday(/* ) */)", "SELECT unixepoch()"),
    *("SELECT strftime('%Y')", "SELECT strftime(replace('%x', 'x', char(89)))", "SELECT 1 + [date]()"),
    *("SELECT \"strftime\"('%Y')", "SELECT date(x'6e6F77')", "SELECT timediff('now', d) FROM t"),
    *("SELECT unixepoch('subsec')", "SELECT strftime('%s', 'subsecond')", "SELECT julianday('NOW', '-1 day')"),
    *("SELECT current_date", "SELECT a FROM t WHERE d < CURRENT_TIMESTAMP", "SELECT max(d, Current_Time) FROM t"),
    *("SELECT CASE WHEN 1 THEN current_date END", "SELECT -current_date", "SELECT max(1/**/,/**/current_date)"),
    *("SELECT random()", "SELECT RANDOM ( )", "SELECT random/* a */(\n)", 'SELECT "random"()', "SELECT [Random]()"),
    *("SELECT randomblob(4)", "SELECT hex(`randomblob`(abs(4)))", "SELECT a FROM t ORDER BY abs(random())"),
    *("WITH n AS (SELECT 'now' AS x) SELECT date(x) FROM n", "SELECT date(CASE WHEN a THEN 'now' END) FROM t"),
    *("SELECT datetime(d, 'localtime') FROM t", "SELECT datetime(d, '+1 day', 'UTC') FROM t"),
]
NO_CLOCK = [
    *("SELECT 'right now'", "SELECT date('right now')", "SELECT a FROM t WHERE b = 'now'", "SELECT date(' now')"),
    *("SELECT date(d) FROM t", "SELECT strftime('%Y', d) FROM t", "SELECT date((d)) FROM t", "SELECT date(now) FROM t"),
    *("SELECT random FROM t", "SELECT \"random\" FROM t", "SELECT 'random()'", "SELECT random -- ()\n FROM t"),
    *("SELECT \"current_date\" FROM t", "SELECT [current_date] FROM t", "SELECT t.current_date FROM t"),
    *("SELECT a AS current_date FROM t", "SELECT 'current_date' FROM t", "SELECT a current_time FROM t"),
    *("SELECT 1 -- date()", "SELECT 1 /* random() */", "SELECT date, time FROM t"),
    *("SELECT date(d, 'subsec') FROM t", "SELECT zone = 'utc', date(d) FROM t", "SELECT [date()] FROM t"),
    *("SELECT is_random(1)", "SELECT updated(1), mydate()", "SELECT date([now]) FROM t"),
    *("SELECT 'a''now''b', date(d) FROM t", "SELECT d FROM t WHERE d IN ()"),
    *("WITH random(a) AS (SELECT 1) SELECT a FROM random", "SELECT count(*) FROM t WHERE date(d) IN (SELECT d FROM t)"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), [*((sql, True) for sql in CLOCK), *((sql, False) for sql in NO_CLOCK)])
def test_what_reads_the_clock_or_draws(sql, expected):
    assert clock_or_random(sql) is expected


# without those in which SQLite takes "now" for a missing column of the index, and what is new in later ones
EXPRESSIONS = [sql.removeprefix("SELECT ").removesuffix(" FROM t") for sql in CLOCK + NO_CLOCK]
EXPRESSIONS = [text for text in EXPRESSIONS if not re.search(r'\bFROM\b|"now"|subsec|timediff', text, re.IGNORECASE)]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_sqlite_agrees_on_what_reads_the_clock(expression):
    """It refuses to index what is not the same every time."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b, d, zone, date, time)")
    connection.execute("INSERT INTO t VALUES (1, 'x', '2020-01-05', 'utc', '2020-01-05', '12:00')")
    refused = ""
    try:
        connection.execute(f"CREATE INDEX i ON t (({expression}\n))")
    except sqlite3.OperationalError as error:
        refused = str(error)
    assert ("non-deterministic" in refused) == clock_or_random(f"SELECT {expression}"), refused


ORDERED = {
    "SELECT a FROM t ORDER BY a": (True, False),
    "SELECT a FROM t ORDER/* */BY a LIMIT 1;": (True, False),
    "SELECT a FROM t -- ORDER BY a\nLIMIT 1": (False, True),
    "SELECT a FROM t WHERE b = 'ORDER' LIMIT 1": (False, True),
    'SELECT "order" FROM t LIMIT 1': (False, True),
    "SELECT a FROM (SELECT a FROM t ORDER BY a)": (False, False),
    "SELECT a FROM (SELECT a FROM t ORDER BY a LIMIT 1)": (False, False),
    "SELECT a FROM (SELECT a FROM t ORDER BY a) LIMIT 1": (False, True),
    "SELECT a FROM (SELECT a FROM t LIMIT 1) ORDER BY a": (True, True),
    "SELECT a, rank() OVER (ORDER BY a) FROM t LIMIT 1": (False, True),
    "SELECT a FROM t UNION SELECT a FROM u ORDER BY 1 LIMIT 2": (True, False),
    "WITH q AS (SELECT a FROM t ORDER BY a LIMIT 1) SELECT a FROM q": (False, False),
    "SELECT 'limit'": (False, False),
    "SELECT a FROM t) ORDER BY (": (False, False),
}


@pytest.mark.parametrize(("sql", "expected"), ORDERED.items())
def test_order_and_limit(sql, expected):
    assert (orders_rows(sql), limit_without_order(sql)) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 3 FROM film WHERE year > 2000", True),
        ("(SELECT 'a' FROM film)", True),
        ("SELECT 1 FROM film UNION SELECT 2", True),
        ("SELECT 1 UNION SELECT year FROM film", False),
        ("SELECT COUNT(*) FROM film", False),
        ("SELECT total(1) FROM film", False),
        ("SELECT EXISTS (SELECT 1 FROM film)", False),
        ("SELECT CASE WHEN year > 2000 THEN 'new' END FROM film", False),
        ("SELECT row_number() OVER () FROM film", False),
        ("no query (", False),
    ],
)
def test_what_returns_constants(sql, expected):
    assert returns_constants(sql) is expected
