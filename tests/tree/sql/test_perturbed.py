"""Perturbed instances: what they promise about their rows and their files, and of strange databases."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.builders import make_instances, rows_of, verdict_here
from tests.conftest import ROOT, make_database
from tests.strange_databases import STRANGE as UNREADABLE
from tests.strange_databases import make_strange
from tree.sql import table_sample
from tree.sql.database_file import connect
from tree.sql.guarded import GuardedDatabase
from tree.sql.perturbed import INSTANCES, build, instance_files
from tree.sql_utils import Executor


def dump(path: Path) -> list[str]:
    with closing(connect(path)) as connection:
        return list(connection.iterdump())


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
    verdict = verdict_here(cinema, "SELECT COUNT(*) * 2 FROM actor", "SELECT COUNT(*) FROM film", tmp_path)
    assert verdict.ex and verdict.execution.flags == ()
    assert all(file.exists() for file in make_instances(cinema, tmp_path).values())


def test_a_changed_database_has_no_instances_yet(tmp_path):
    path = make_database(tmp_path / "t.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    old = make_instances(path, tmp_path)["half_0"]
    shutil.copy(path, tmp_path / "copy.sqlite")
    assert instance_files(tmp_path, str(tmp_path / "copy.sqlite"))[0] == old
    make_database(path, "INSERT INTO t VALUES (2)")
    assert not instance_files(tmp_path, str(path))[0].exists()


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
