"""Perturbed instances: what they promise about their rows, strange databases, and which queries they give away."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders import make_instances, verdict_here
from tests.conftest import ROOT, make_database
from tests.strange_databases import STRANGE as UNREADABLE
from tests.strange_databases import make_strange
from tree.sql import table_sample
from tree.sql import verdict as verdict_room
from tree.sql.database_file import connect
from tree.sql.guarded import GuardedDatabase
from tree.sql.perturbed import INSTANCES, build, instance_files
from tree.sql.query_text import returns_constants
from tree.sql.results import FLAGS
from tree.sql.verdict import ties_broken
from tree.sql_utils import Executor

CINEMA = """
CREATE TABLE director (id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT);
CREATE TABLE film (
    id INTEGER PRIMARY KEY, title TEXT, year INTEGER, rating REAL, director_id INTEGER NOT NULL REFERENCES director
);
CREATE TABLE actor (id INTEGER PRIMARY KEY, name TEXT, mentor_id INTEGER REFERENCES actor (id), born INTEGER);
CREATE TABLE role (
    film_id INTEGER REFERENCES FILM (ID), actor_id INTEGER REFERENCES actor, part TEXT, PRIMARY KEY (film_id, actor_id)
);
CREATE TABLE award (film_id INTEGER, actor_id INTEGER, name TEXT, FOREIGN KEY (film_id, actor_id) REFERENCES role);
CREATE INDEX by_year ON film (year);
CREATE VIEW recent AS SELECT title FROM film WHERE year > 1990;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 12)
INSERT INTO director SELECT i, 'director ' || i, CASE i % 3 WHEN 0 THEN 'France' ELSE 'Japan' END FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40)
INSERT INTO film SELECT i, 'film ' || i, 1970 + i, (i * 37 % 101) / 10.0, 1 + i * 5 % 11 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20)
INSERT INTO actor SELECT i, 'actor ' || i, nullif(i / 3, 0), 1930 + i * 7 % 60 FROM n;
INSERT INTO role SELECT f.id, a.id, 'part ' || (f.id + a.id) FROM film f, actor a WHERE (f.id * 7 + a.id * 3) % 9 = 0;
INSERT INTO award SELECT film_id, actor_id, 'prize' FROM role WHERE (film_id + actor_id) % 4 = 0;
"""


def rows_of(path: Path, query: str) -> list[tuple]:
    with closing(connect(path)) as connection:
        return connection.execute(query).fetchall()


def dump(path: Path) -> list[str]:
    with closing(connect(path)) as connection:
        return list(connection.iterdump())


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("cinema") / "cinema.sqlite", CINEMA)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cinema: Path) -> Path:
    """A folder with the instances of `cinema`."""
    folder = tmp_path_factory.mktemp("instances")
    make_instances(cinema, folder)
    return folder


@pytest.fixture(scope="module")
def instances(cinema: Path, folder: Path) -> dict[str, Path]:
    return dict(zip(INSTANCES, instance_files(folder, str(cinema)), strict=True))


# --- rows -----------------------------------------------------------------------------------------------------------


def test_no_row_that_others_do_not_refer_to_is_in_both_halves(cinema, instances):
    rows, one, other = (set(rows_of(path, "SELECT * FROM award")) for path in (cinema, *list(instances.values())[:2]))
    assert one and other and not one & other and one | other <= rows


def test_halves_of_a_table_without_foreign_keys_are_complementary(tmp_path):
    path = make_database(tmp_path / "t.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3), (4), (5)")
    files = make_instances(path, tmp_path)
    halves = [rows_of(files[name], "SELECT a FROM t") for name in ("half_0", "half_1")]
    assert sorted(map(len, halves)) == [2, 3] and sorted(halves[0] + halves[1]) == rows_of(path, "SELECT a FROM t")


def test_no_half_has_every_row_of_a_table_and_none_is_without(cinema, instances):
    for table in ("director", "film", "actor", "role", "award"):
        counts = [rows_of(path, f"SELECT COUNT(*) FROM {table}")[0][0] for path in (cinema, *instances.values())]
        whole, one, other, moved = counts
        assert 0 < one <= whole and 0 < other < whole and moved == whole


def test_foreign_keys_hold(cinema, instances):
    for path in (cinema, *instances.values()):
        assert rows_of(path, "PRAGMA foreign_key_check") == []


def test_a_row_without_its_parent_stays(tmp_path):
    script = """CREATE TABLE parent (id INTEGER PRIMARY KEY);
    CREATE TABLE child (id INTEGER PRIMARY KEY, p REFERENCES parent);
    INSERT INTO parent VALUES (1), (2), (3), (4); INSERT INTO child VALUES (1, 99), (2, 99), (3, NULL), (4, 1)"""
    files = make_instances(make_database(tmp_path / "t.sqlite", script), tmp_path)
    kept = [rows_of(files[name], "SELECT id FROM child WHERE p = 99 OR p IS NULL") for name in ("half_0", "half_1")]
    assert sorted(kept[0] + kept[1]) == [(1,), (2,), (3,)]


def test_shuffled_keeps_columns_and_keys(cinema, instances):
    moved = instances["shuffled"]
    for table in ("director", "film", "actor", "role", "award"):
        columns = [name for (name,) in rows_of(cinema, f"SELECT name FROM pragma_table_info('{table}')")]
        for column in columns:
            query = f"SELECT {column} FROM {table}"
            assert Counter(rows_of(moved, query)) == Counter(rows_of(cinema, query))
    for keys in ("film_id, actor_id FROM role", "id, director_id FROM film", "id, mentor_id FROM actor"):
        assert rows_of(moved, f"SELECT {keys}") == rows_of(cinema, f"SELECT {keys}")
    for free in ("id, title", "id, rating", "title, year"):
        before, after = (set(rows_of(path, f"SELECT {free} FROM film")) for path in (cinema, moved))
        assert not before & after


def test_every_machine_builds_the_same(cinema, tmp_path, instances):
    script = "import sys; from tests.builders import *; make_instances(Path(sys.argv[1]), Path(sys.argv[2]))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script, cinema, tmp_path], check=True, env=environment, cwd=ROOT)
    again = dict(zip(INSTANCES, instance_files(tmp_path, str(cinema)), strict=True))
    assert {name: dump(path) for name, path in again.items()} == {name: dump(path) for name, path in instances.items()}


def test_schema_is_kept(cinema, instances):
    query = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    for path in instances.values():
        assert rows_of(path, query) == rows_of(cinema, query)


@pytest.mark.parametrize("without", ["", " WITHOUT ROWID"])
def test_of_a_large_table_a_part_is_taken_with_what_it_refers_to(tmp_path, monkeypatch, without):
    script = f"""CREATE TABLE grand (id INTEGER PRIMARY KEY, a){without};
    CREATE TABLE parent (id INTEGER PRIMARY KEY, b TEXT UNIQUE, g REFERENCES grand){without};
    CREATE TABLE child (id INTEGER PRIMARY KEY, b REFERENCES parent (b)){without};
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) INSERT INTO grand SELECT i, i FROM n;
    INSERT INTO parent SELECT id, 'p' || id, 2001 - id FROM grand;
    INSERT INTO child SELECT id * 3, 'p' || (1 + id * 7 % 2000) FROM grand;"""
    path = make_database(tmp_path / "t.sqlite", script)
    monkeypatch.setattr(table_sample, "ROWS", 50)
    files = make_instances(path, tmp_path)
    for file in files.values():
        assert rows_of(file, "PRAGMA foreign_key_check") == []
    counts = [rows_of(files["shuffled"], f"SELECT COUNT(*) FROM {name}")[0][0] for name in ("child", "parent", "grand")]
    assert counts[0] == 50 and 50 < counts[1] <= 100 and 50 < counts[2] <= 150
    if not without:  # spread over the table
        assert rows_of(files["shuffled"], "SELECT MAX(id) FROM child")[0][0] > 5000


def test_large_values_are_limited(tmp_path, monkeypatch):
    path = make_database(tmp_path / "t.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES ('x'), ('yyy'), ('z'), ('a')")
    monkeypatch.setattr(table_sample, "BYTES", 3)
    assert rows_of(make_instances(path, tmp_path)["shuffled"], "SELECT COUNT(*) FROM t") == [(2,)]


# --- strange databases ----------------------------------------------------------------------------------------------

STRANGE = {
    "nothing": "PRAGMA user_version = 1",
    "no rows": "CREATE TABLE t (a, b)",
    "one row": "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)",
    "without rowid": """CREATE TABLE t (a PRIMARY KEY, b) WITHOUT ROWID;
        INSERT INTO t VALUES (1, 2), ('1', 3), (x'31', 4)""",
    "generated": """CREATE TABLE t (a INTEGER, b AS (a + 1), c AS (a * 2) STORED UNIQUE, d);
        INSERT INTO t (a, d) VALUES (1, 'x'), (2, 'y'), (3, 'z')""",
    "quotes": """CREATE TABLE "a ""b"" [c] `d` 'e' %" (
            "x ""y" TEXT, 'z''s' INT REFERENCES "a ""b"" [c] `d` 'e' %" ("x ""y"));
        INSERT INTO "a ""b"" [c] `d` 'e' %" VALUES ('1', 1), ('2', 1)""",
    "bytes": """CREATE TABLE t (a TEXT PRIMARY KEY, b TEXT REFERENCES t, c);
        INSERT INTO t VALUES (CAST(x'4dfc6e' AS TEXT), CAST(x'4df66e' AS TEXT), x'4dfc'),
        ('a' || char(0) || 'b', NULL, 1),
        (CAST(x'4df66e' AS TEXT), NULL, 9e999), ('ü', 'a' || char(0) || 'b', -9223372036854775808)""",
    "virtual": """CREATE VIRTUAL TABLE v USING fts5(a); INSERT INTO v VALUES ('word'); CREATE TABLE t (a);
        INSERT INTO t VALUES (1), (2)""",
    "trigger": """CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3);
        CREATE TRIGGER g BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'no'); END""",
    "broken view": "CREATE TABLE t (a); CREATE TABLE u (a); CREATE VIEW v AS SELECT a FROM u; DROP TABLE u",
    "keys to nothing": """CREATE TABLE t (a REFERENCES missing (x), b REFERENCES u (missing), c REFERENCES u);
        CREATE TABLE u (x); INSERT INTO t VALUES (1, 2, 3), (4, 5, 6)""",
    "sequence": "CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b); INSERT INTO t (b) VALUES (1), (2), (3)",
    "strict": "CREATE TABLE t (a INT, b TEXT, c ANY) STRICT; INSERT INTO t VALUES (1, 'x', 'y'), (2, 'z', 3)",
    "checks": """CREATE TABLE t (a INT, b INT, c UNIQUE, CHECK (a < b));
        INSERT INTO t VALUES (1, 2, 1), (3, 4, 2), (5, 6, 3);
        CREATE UNIQUE INDEX i ON t (a + b); CREATE UNIQUE INDEX j ON t (a) WHERE b > 2""",
    "circle": """CREATE TABLE a (id INTEGER PRIMARY KEY, b REFERENCES b);
        CREATE TABLE b (id INTEGER PRIMARY KEY, a REFERENCES a);
        INSERT INTO a VALUES (1, 2), (2, 3), (3, 4), (4, 1); INSERT INTO b VALUES (1, 1), (2, 2), (3, 3), (4, 4)""",
    "affinity": """CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE n (x TEXT COLLATE NOCASE PRIMARY KEY);
        CREATE TABLE b (a TEXT REFERENCES a, n TEXT REFERENCES n);
        INSERT INTO a VALUES (1), (2), (3), (4), (10000000000000);
        INSERT INTO n VALUES ('Ab'), ('Cd'), ('Ef');
        INSERT INTO b VALUES ('1', 'ab'), ('2', 'CD'), ('3.0', 'eF'), ('1e13', 'AB')""",
    "analyzed": "CREATE TABLE t (a PRIMARY KEY, b); INSERT INTO t VALUES (1, 2), (2, 3); ANALYZE",
    "rowid names": "CREATE TABLE t (rowid, oid, _rowid_); INSERT INTO t VALUES ('a', 'b', 'c'), ('d', 'e', 'f')",
    "utf-16": "PRAGMA encoding = 'UTF-16'; CREATE TABLE t (a); INSERT INTO t VALUES ('ä'), ('𝄞'), (1)",
    "latin schema": "CREATE TABLE t (a DEFAULT 'x'); INSERT INTO t VALUES (1), (2)",
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_databases_have_instances(tmp_path, monkeypatch, name):
    path = make_database(tmp_path / "t.sqlite", STRANGE[name])
    if name == "latin schema":
        path.write_bytes(path.read_bytes().replace(b"DEFAULT 'x'", b"DEFAULT '\xfc'"))
    if name == "rowid names":
        monkeypatch.setattr(table_sample, "ROWS", 1)
    files = make_instances(path, tmp_path)
    before = rows_of(path, "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'")[0][0]
    for file in files.values():
        assert rows_of(file, "PRAGMA integrity_check(1)")[0][0].startswith(("ok", "CHECK"))
        assert before == 0 or name == "virtual" or rows_of(file, "SELECT COUNT(*) FROM sqlite_master")[0][0] > 0
        if name in ("circle", "affinity", "bytes"):
            assert rows_of(file, "PRAGMA foreign_key_check") == []
        GuardedDatabase(str(file))


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_left_out(tmp_path, name):
    strange = UNREADABLE[name]
    path = make_strange(tmp_path / "s.sqlite", strange)
    files = instance_files(tmp_path, str(path))
    with closing(connect(path)) as connection:
        problems = build(connection, files, lambda: True)
    assert {table for table, _ in problems} <= {table for table, _ in strange.unread} and all(problems.values())
    assert rows_of(files[2], "SELECT COUNT(*) FROM t") == [(3,)]
    for file in files:
        GuardedDatabase(str(file))


@pytest.mark.parametrize("name", ["bytes", "strict", "generated", "without rowid", "sequence", "utf-16"])
def test_values_are_copied_exactly(tmp_path, name):
    path = make_database(tmp_path / "t.sqlite", STRANGE[name])
    moved = make_instances(path, tmp_path)["shuffled"]
    columns = [column for (column,) in rows_of(path, "SELECT name FROM pragma_table_xinfo('t')")]
    for column in columns:
        query = f"SELECT typeof({column}), {column} FROM t"
        assert Counter(rows_of(path, query)) == Counter(rows_of(moved, query))


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_file_is_whole_or_absent(cinema, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        make_instances(cinema, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_killed_build_leaves_nothing_that_counts(cinema, tmp_path):
    script = """import os, signal, sys
from tests.builders import *
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
make_instances(Path(sys.argv[1]), Path(sys.argv[2]))"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", script, cinema, tmp_path], env=environment, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert [path for path in tmp_path.rglob("*") if path.is_file()]  # the temporary file
    assert not any(file.exists() for file in instance_files(tmp_path, str(cinema)))
    assert flags(cinema, tmp_path, "SELECT COUNT(*) FROM film", "SELECT COUNT(*) * 2 FROM actor") == ()
    assert all(file.exists() for file in make_instances(cinema, tmp_path).values())


def test_a_changed_database_has_no_instances_yet(tmp_path):
    path = make_database(tmp_path / "t.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    old = make_instances(path, tmp_path)["half_0"]
    shutil.copy(path, tmp_path / "copy.sqlite")
    assert instance_files(tmp_path, str(tmp_path / "copy.sqlite"))[0] == old
    make_database(path, "INSERT INTO t VALUES (2)")
    assert not instance_files(tmp_path, str(path))[0].exists()


# --- which queries are given away -----------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("gold", "constant"),
    [
        ("SELECT COUNT(*) FROM film WHERE year = 1800", "SELECT 0 FROM film WHERE rating IS NOT NULL"),
        ("SELECT MAX(country) FROM director", "SELECT {0!r} FROM director WHERE id > 0 ORDER BY id LIMIT 1"),
        ("SELECT MAX(country) FROM director", "SELECT {0!r} FROM film WHERE year > 0 UNION SELECT {0!r} FROM director"),
    ],
)
def test_a_constant_behind_a_condition_is_caught(cinema, folder, gold, constant):
    ((value,),) = rows_of(cinema, gold)
    assert "fragile" in flags(cinema, folder, gold, constant.format(value))


def test_a_constant_that_gold_writes_too_is_no_guess(cinema, folder):
    gold = "SELECT 'yes' FROM film WHERE year > 0"
    assert "fragile" not in flags(cinema, folder, gold, "SELECT 'yes' FROM film WHERE NOT year <= 0")


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


COINCIDENCES = [
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


# --- through the pool -----------------------------------------------------------------------------------------------


def test_the_executor_prepares_and_judges(cinema, tmp_path):
    damaged = tmp_path / "damaged.sqlite"
    content = bytearray(cinema.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    damaged.write_bytes(content)
    gold, queries = (
        "SELECT COUNT(*) FROM film",
        ["SELECT COUNT(id) FROM film", "SELECT COUNT(*) * 2 FROM actor", "SELECT 40"],
    )

    async def judged(executor: Executor) -> list[bool]:
        return ["fragile" in verdict.execution.flags for verdict in await executor.judge_all(cinema, queries, gold)]

    async def scenario() -> None:
        with Executor(workers=1, perturbed=tmp_path / "perturbed") as executor:
            assert await judged(executor) == [False, False, True]  # not prepared
            assert await executor.prepare(cinema) == ("", {})
            assert await executor.prepare(cinema) == ("", {})
            assert await judged(executor) == [False, True, True]
            assert (await executor.judge(cinema, queries[1], gold)).execution.flags == ("fragile",)
            for strange in (damaged, tmp_path / "missing.sqlite"):
                reason, _ = await executor.prepare(strange)
                assert reason and "\n" not in reason
            broken = make_strange(tmp_path / "broken.sqlite", UNREADABLE["damaged pages"])
            reason, problems = await executor.prepare(broken)
            assert reason == "" and list(problems) == [("v", "")]
        with Executor(workers=1) as executor:
            assert await judged(executor) == [False, False, False]

    asyncio.run(scenario())
