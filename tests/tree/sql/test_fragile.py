"""Which queries the perturbed instances give away: right by luck, and never those that mean the same as gold."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders import make_instances, rows_of, verdict_here
from tests.shop import make_database
from tree.sql import verdict as verdict_room
from tree.sql.results import FLAGS
from tree.sql.verdict import ties_broken


def flags(path: Path, folder: Path | None, gold: str, sql: str) -> tuple[str, ...]:
    verdict = verdict_here(path, sql, gold, folder)
    assert verdict.ex, verdict
    assert all(flag in FLAGS for flag in verdict.execution.flags)
    return verdict.execution.flags


@pytest.mark.parametrize(
    "gold",
    [
        "SELECT COUNT(*) FROM film",
        "SELECT COUNT(*) FROM director",
        "SELECT title FROM film ORDER BY rating DESC LIMIT 1",
        "SELECT title FROM film WHERE year = 1999",
        "SELECT title FROM film WHERE rating > 9",
        "SELECT d.name FROM director d JOIN film f ON d.id = f.director_id GROUP BY d.id ORDER BY COUNT(*) LIMIT 1",
        "SELECT AVG(rating) FROM film",
        "SELECT MAX(country) FROM director",  # the same on every instance
        "SELECT COUNT(*) FROM film WHERE year = 1800",
        "SELECT title FROM film WHERE year = 1800",
    ],
)
@pytest.mark.parametrize(
    "constant",
    [
        "SELECT * FROM ({})",
        "WITH x AS ({}) SELECT * FROM x",
        "SELECT x.* FROM ({}) AS x, film",
        "SELECT x.* FROM ({}) AS x, film LIMIT 100000",
        "SELECT DISTINCT x.* FROM director, ({}) AS x",
        "WITH film AS ({}) SELECT * FROM film",
    ],
)
def test_constants_are_always_caught(cinema, folder, gold, constant):
    rows = rows_of(cinema, gold)
    values = "VALUES " + ", ".join(f"({', '.join(map(repr, row))})" for row in rows) if rows else "SELECT 1 WHERE 0"
    assert "fragile" in flags(cinema, folder, gold, constant.format(values))


COINCIDENCES = [
    # constants behind a condition
    ("SELECT COUNT(*) FROM film WHERE year = 1800", "SELECT 0 FROM film WHERE rating IS NOT NULL"),
    ("SELECT MAX(country) FROM director", "SELECT 'Japan' FROM director WHERE id > 0 ORDER BY id LIMIT 1"),
    ("SELECT MAX(country) FROM director", "SELECT 'Japan' FROM film WHERE year > 0 UNION SELECT 'Japan' FROM director"),
    # rows that happen to be the right ones
    ("SELECT title FROM film ORDER BY rating DESC LIMIT 1", "SELECT title FROM film WHERE id = 30"),
    ("SELECT title FROM film ORDER BY rating DESC LIMIT 1", "SELECT 'film 30' FROM film WHERE id > 2"),
    ("SELECT title FROM film WHERE year > 2005", "SELECT title FROM film WHERE id > 35"),
    ("SELECT COUNT(DISTINCT name) FROM director", "SELECT MAX(id) FROM director"),
    ("SELECT COUNT(*) FROM film", "SELECT COUNT(*) * 2 FROM actor"),
]


@pytest.mark.parametrize(("gold", "sql"), COINCIDENCES)
def test_coincidences_are_flagged(cinema, folder, gold, sql):
    assert "fragile" in flags(cinema, folder, gold, sql)


EQUIVALENT = [
    ("SELECT COUNT(*) FROM film", "SELECT COUNT(id) FROM film"),
    ("SELECT COUNT(*) FROM film", "SELECT SUM(1) FROM film"),
    ("SELECT COUNT(*) FROM film", "SELECT COUNT(*) FROM film AS f JOIN director AS d ON f.director_id = d.id"),
    (
        "SELECT DISTINCT d.name FROM director AS d JOIN film AS f ON f.director_id = d.id WHERE f.year > 2000",
        "SELECT name FROM director WHERE id IN (SELECT director_id FROM film WHERE year > 2000)",
    ),
    (
        "SELECT DISTINCT d.name FROM director AS d JOIN film AS f ON f.director_id = d.id WHERE f.year > 2000",
        "SELECT name FROM director AS d WHERE EXISTS (SELECT 1 FROM film WHERE director_id = d.id AND year > 2000)",
    ),
    (
        "SELECT f.title, a.name FROM film AS f JOIN role AS r ON r.film_id = f.id JOIN actor AS a ON a.id = r.actor_id",
        "SELECT f.title, a.name FROM actor AS a JOIN role AS r ON a.id = r.actor_id JOIN film AS f ON r.film_id = f.id",
    ),
    (
        "SELECT name FROM director WHERE id NOT IN (SELECT director_id FROM film)",
        "SELECT d.name FROM director AS d LEFT JOIN film AS f ON f.director_id = d.id WHERE f.id IS NULL",
    ),
    ("SELECT AVG(rating) FROM film", "SELECT SUM(rating) / COUNT(rating) FROM film ORDER BY title"),
    (
        "SELECT title FROM film ORDER BY rating DESC LIMIT 1",
        "SELECT title FROM film WHERE rating = (SELECT MAX(rating) FROM film)",
    ),
    (
        "SELECT name FROM director d JOIN film f ON f.director_id = d.id GROUP BY d.id ORDER BY COUNT(*), d.id LIMIT 1",
        "SELECT name FROM director WHERE id = (SELECT director_id FROM film GROUP BY 1 ORDER BY COUNT(*), 1 LIMIT 1)",
    ),
    (
        "SELECT name FROM actor WHERE mentor_id IS NULL",
        "SELECT name FROM actor WHERE NOT mentor_id > 0 OR mentor_id IS NULL",
    ),
    (
        "SELECT title FROM film WHERE year BETWEEN 1990 AND 1995",
        "SELECT title FROM film WHERE year >= 1990 AND year <= 1995",
    ),
    ("SELECT title FROM film", "select  title from FILM ;"),
    ("SELECT date('now') FROM film WHERE id = 1", "SELECT date('now') FROM film WHERE id = 2"),
    # a constant that gold writes too is no guess
    ("SELECT 'yes' FROM film WHERE year > 0", "SELECT 'yes' FROM film WHERE NOT year <= 0"),
]


@pytest.mark.parametrize(("gold", "sql"), EQUIVALENT)
def test_equivalent_queries_are_not_flagged(cinema, folder, gold, sql):
    assert "fragile" not in flags(cinema, folder, gold, sql)


def test_which_of_equal_rows_a_limit_takes_is_no_difference(tmp_path):
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 9, 'x')"
    script += "".join(f", ({i}, {i % 2}, 'r{i}')" for i in range(2, 40))
    path = make_database(tmp_path / "t.sqlite", script)
    make_instances(path, tmp_path)
    gold = "SELECT b FROM t ORDER BY a DESC LIMIT 1"  # many share the first place in the half without row 1
    for same in (
        "SELECT b FROM t ORDER BY a DESC, id DESC LIMIT 1",
        "SELECT b FROM t WHERE a = (SELECT MAX(a) FROM t)",
    ):
        assert "fragile" not in flags(path, tmp_path, gold, same)
        assert "fragile" not in flags(path, tmp_path, same, gold)
    assert "fragile" in flags(path, tmp_path, "SELECT MAX(a) FROM t", "SELECT a FROM t WHERE id = 1")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t", "SELECT a FROM t"),
        ("SELECT a, b FROM t ORDER BY c limit 3", "SELECT a, b FROM t ORDER BY c , 1 ASC, 2 ASC limit 3"),
        ("SELECT a, b FROM t LIMIT 3", "SELECT a, b FROM t ORDER BY 1 ASC, 2 ASC LIMIT 3"),
        ("SELECT 'a LIMIT', \"limit\" FROM [order] -- LIMIT", "SELECT 'a LIMIT', \"limit\" FROM [order] -- LIMIT"),
        (
            "SELECT a, b FROM t WHERE c IN (SELECT c FROM u ORDER BY d LIMIT 2) LIMIT 1",
            "SELECT a, b FROM t WHERE c IN (SELECT c FROM u ORDER BY d , 1 ASC LIMIT 2) ORDER BY 1 ASC, 2 ASC LIMIT 1",
        ),
        (
            "SELECT sum(a) OVER (ORDER BY b) FROM t LIMIT 1",
            "SELECT sum(a) OVER (ORDER BY b) FROM t ORDER BY 1 ASC, 2 ASC LIMIT 1",
        ),
    ],
)
def test_ties_broken(sql, expected):
    assert ties_broken(sql, 2, "ASC") == expected


def test_what_an_instance_does_without_says_nothing(tmp_path):
    script = "CREATE TABLE t (a); INSERT INTO t VALUES ('x'), ('y'); CREATE VIRTUAL TABLE v USING fts5(a);"
    path = make_database(tmp_path / "t.sqlite", script + "INSERT INTO v SELECT a FROM t")
    make_instances(path, tmp_path)
    assert flags(path, tmp_path, "SELECT a FROM t", "SELECT a FROM v") == ()
    assert flags(path, tmp_path, "SELECT a FROM v", "SELECT a FROM t") == ()


def test_a_candidate_that_fails_on_an_instance_is_flagged_unless_a_limit_stopped_it(cinema, folder, monkeypatch):
    failing = "SELECT title FROM film WHERE id = 1 OR (SELECT COUNT(*) FROM film) < 40 AND json('{') IS NULL"
    gold = "SELECT title FROM film WHERE id = 1"
    assert "fragile" in flags(cinema, folder, gold, failing)
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT COUNT(*) FROM c"
    slow = f"{gold} AND CASE WHEN (SELECT COUNT(*) FROM film) = 40 THEN 1 ELSE ({endless}) END"
    monkeypatch.setattr(verdict_room, "INSTANCE_STEPS", 100_000)
    assert "fragile" not in flags(cinema, folder, gold, slow)
    assert "fragile" not in flags(cinema, folder, slow, gold)


def test_nothing_is_flagged_without_the_folder(cinema):
    assert "fragile" not in flags(cinema, None, "SELECT COUNT(*) FROM film", "SELECT 40")


# --- random tables --------------------------------------------------------------------------------------------------

small = st.integers(0, 4)
databases = st.tuples(
    st.lists(st.tuples(small, st.sampled_from(["x", "y", None])), min_size=1, max_size=8),
    st.lists(st.tuples(small, st.one_of(st.none(), small)), max_size=12),
)
PAIRS = [
    ("SELECT a FROM p WHERE a > 1", "SELECT a FROM p WHERE NOT a <= 1"),
    ("SELECT COUNT(*) FROM c", "SELECT COUNT(id) FROM c"),
    ("SELECT p.b FROM p JOIN c ON c.p = p.id", "SELECT b FROM p WHERE id IN (SELECT p FROM c)"),
    ("SELECT COUNT(*) FROM c JOIN p ON c.p = p.id", "SELECT COUNT(p) FROM c"),
    (
        "SELECT a FROM p ORDER BY a DESC LIMIT 1",
        "SELECT MAX(a) FROM p WHERE (SELECT COUNT(*) FROM p) > 0 HAVING COUNT(*) > 0",
    ),
    ("SELECT a, b FROM p ORDER BY a LIMIT 2", "SELECT a, b FROM p ORDER BY a, id DESC LIMIT 2"),
    ("SELECT b, COUNT(*) FROM p GROUP BY b", "SELECT DISTINCT b, COUNT(*) OVER (PARTITION BY b) FROM p"),
]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(databases)
def test_random_tables(content):
    parents, children = content
    with tempfile.TemporaryDirectory() as place:
        path = make_database(
            Path(place) / "t.sqlite",
            "CREATE TABLE p (id INTEGER PRIMARY KEY, a INT, b TEXT);"
            "CREATE TABLE c (id INTEGER PRIMARY KEY, n INT, p INT REFERENCES p);",
        )
        with closing(sqlite3.connect(path)) as connection:
            connection.executemany("INSERT INTO p VALUES (?, ?, ?)", [(i, *row) for i, row in enumerate(parents)])
            held = [(i, n, None if p is None else p % len(parents)) for i, (n, p) in enumerate(children)]
            connection.executemany("INSERT INTO c VALUES (?, ?, ?)", held)
            connection.commit()
        files = make_instances(path, Path(place))
        assert all(rows_of(file, "PRAGMA foreign_key_check") == [] for file in files.values())
        assert not set(rows_of(files["half_0"], "SELECT id FROM c")) & set(rows_of(files["half_1"], "SELECT id FROM c"))
        for one, other in PAIRS:
            for gold, sql in ((one, other), (other, one)):
                verdict = verdict_here(path, sql, gold, Path(place))
                assert not (verdict.ex and "fragile" in verdict.execution.flags), (gold, sql)
            rows = rows_of(path, one)
            values = ", ".join(f"({', '.join('NULL' if v is None else repr(v) for v in row)})" for row in rows)
            constant = f"VALUES {values}" if rows else "SELECT 1 WHERE 0"
            assert "fragile" in flags(path, Path(place), one, constant)
