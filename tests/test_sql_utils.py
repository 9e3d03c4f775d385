"""The executor: every promise of its sandbox attacked, every outcome reached, the verdict."""

import asyncio
import hashlib
import multiprocessing
import os
import sqlite3
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tree import sql_utils
from tree.files import InputError
from tree.gold_cache import GoldCache
from tree.sandbox import Limits, connect
from tree.sql_utils import Executor, check_database
from tree.verdict import Verdict, same_rows
from tree.verdict import judge as judge_in_process

ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT COUNT(*) FROM c"


@pytest.fixture(scope="module")
def executor():
    with Executor(workers=1, timeout=0.5) as pool:
        yield pool


def outcome(executor: Executor, path: Path, sql: str) -> str:
    return asyncio.run(executor.execute(path, sql)).outcome


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT name FROM product", "ok"),
        ("WITH t AS (SELECT 1 AS a) SELECT a FROM t;", "ok"),
        ("VALUES (1), (2)", "ok"),
        ("-- a comment\nSELECT COUNT(*) FROM product", "ok"),
        ("SELECT name FROM product WHERE id = 99", "empty"),
        ("SELECT nme FROM product", "error"),
        ("SELEC 1", "error"),
        ("SELECT '\0'", "error"),
        ("SELECT '\ud800'", "error"),
        ("(SELECT 1)", "error"),
        ("DELETE FROM product", "denied"),
        ("INSERT INTO product (id) VALUES (9)", "denied"),
        ("UPDATE product SET name = 'x'", "denied"),
        ("DROP TABLE product", "denied"),
        ("CREATE TABLE t (a)", "denied"),
        ("CREATE TEMP TABLE t (a)", "denied"),
        ("PRAGMA writable_schema = 1", "denied"),
        ("PRAGMA table_info(product)", "denied"),
        ("ATTACH 'other.sqlite' AS other", "denied"),
        ("VACUUM INTO 'copy.sqlite'", "denied"),
        ("BEGIN", "denied"),
        ("SELECT load_extension('x')", "denied"),
        ("WITH t AS (SELECT 1) DELETE FROM product", "denied"),
        (ENDLESS, "timeout"),
        ("SELECT COUNT(*) FROM " + ", ".join(f"product AS p{i}, product AS q{i}" for i in range(14)), "timeout"),
        ("SELECT zeroblob(2000000000)", "too_large"),
        ("SELECT replace(hex(zeroblob(9000000)), '0', 'aaaaaaaaaa')", "too_large"),
        ("", "not_a_query"),
        (" ; ", "not_a_query"),
        ("-- only a comment", "not_a_query"),
        ("/* nothing */", "not_a_query"),
        ("SELECT 1; SELECT 2", "not_a_query"),
        ("SELECT 1; DROP TABLE product", "not_a_query"),
        ("EXPLAIN SELECT 1", "not_a_query"),
        ("/* hidden */ EXPLAIN QUERY PLAN SELECT 1", "not_a_query"),
    ],
)
def test_outcome(executor, shop, sql, expected):
    before = hashlib.sha256(shop.read_bytes()).hexdigest(), sorted(os.listdir(shop.parent))
    assert outcome(executor, shop, sql) == expected
    assert (hashlib.sha256(shop.read_bytes()).hexdigest(), sorted(os.listdir(shop.parent))) == before
    assert outcome(executor, shop, "SELECT 1") == "ok"  # the worker is still well


def test_a_result_over_the_row_limit_is_too_large(executor, shop):
    rows = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000002) SELECT n FROM c"
    with Executor(workers=1, timeout=30) as patient:
        assert outcome(patient, shop, rows) == "too_large"


def test_a_dead_worker_costs_its_own_task_only(shop):
    async def scenario() -> tuple[str, str]:
        with Executor(workers=1, timeout=20) as executor:
            await executor.execute(shop, "SELECT 1")
            doomed = asyncio.create_task(executor.execute(shop, ENDLESS))
            while not doomed.done():  # the task is tried once more, on a worker that must start first
                await asyncio.sleep(1)
                for worker in multiprocessing.active_children():
                    worker.kill()
            return (await doomed).outcome, (await executor.execute(shop, "SELECT 1")).outcome

    assert asyncio.run(scenario()) == ("crashed", "ok")


def judge(path: Path, sql: str, gold: str) -> Verdict:
    return judge_in_process(str(path), sql, gold, Limits(5.0, 10**9), GoldCache(None))


@pytest.mark.parametrize(
    ("sql", "gold", "ex", "strict"),
    [
        ("SELECT name FROM product", "SELECT name FROM product", True, True),
        ("SELECT name FROM product ORDER BY name", "SELECT name FROM product", True, True),
        ("SELECT name FROM product ORDER BY name DESC", "SELECT name FROM product ORDER BY name", True, False),
        ("SELECT category FROM product", "SELECT DISTINCT category FROM product", True, False),
        ("SELECT 3.0", "SELECT COUNT(*) FROM product", True, True),
        ("SELECT '3'", "SELECT COUNT(*) FROM product", False, False),
        ("SELECT name FROM product WHERE id = 1", "SELECT name FROM product", False, False),
        ("SELECT nme FROM product", "SELECT name FROM product WHERE id = 99", False, False),
        ("", "SELECT name FROM product WHERE id = 99", False, False),
        ("DELETE FROM product", "SELECT name FROM product WHERE id = 99", False, False),
        ("SELECT id FROM product WHERE id > 99", "SELECT name FROM product WHERE id = 99", True, True),
        ("SELECT nme FROM product", "SELECT nme FROM product", False, False),
    ],
)
def test_verdict(shop, sql, gold, ex, strict):
    verdict = judge(shop, sql, gold)
    assert (verdict.ex, verdict.strict) == (ex, strict)


rows = st.lists(st.tuples(st.sampled_from([0, 1, 1.0, "a", None, "1"])), max_size=6)


@given(rows, rows)
def test_strict_is_stricter_than_ex_and_symmetric(one, other):
    assert same_rows(one, other, lambda: True) <= same_rows(one, other, lambda: False) <= (set(one) == set(other))
    assert same_rows(one, other, lambda: False) == same_rows(other, one, lambda: False)
    assert same_rows(one, list(one), lambda: True)


def test_text_that_is_not_utf8_is_compared_byte_for_byte(tmp_path):
    path = tmp_path / "latin.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a TEXT)")
    connection.execute("INSERT INTO t VALUES (CAST(x'4dfc6e' AS TEXT)), (CAST(x'4df66e' AS TEXT))")
    connection.commit()
    connection.close()
    assert judge(path, "SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 1").ex
    assert not judge(path, "SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 1 OFFSET 1").ex


def test_a_database_is_read_whole_before_the_clock_of_a_query_runs(shop, monkeypatch):
    """A large one takes longer than a query may, and a worker whose clock has run down is killed."""
    path, sql, limits, cache = str(shop), "SELECT 1", Limits(5.0, 10**9), GoldCache(None)
    tasks = (
        lambda: sql_utils._run_gold(path, sql, limits, cache),
        lambda: sql_utils._judge_all(path, (sql,), sql, limits, cache, None),
        lambda: sql_utils._observe(path, sql, sql, limits, cache),
    )
    for task in tasks:
        done = []
        monkeypatch.setattr(sql_utils, "content_digest", lambda _, done=done: done.append("digest"))
        monkeypatch.setattr(sql_utils, "_alarm", lambda _, done=done: done.append("alarm") or nullcontext())
        task()
        assert done[:2] == ["digest", "alarm"]


def test_paths_with_odd_characters_open(tmp_path):
    path = tmp_path / "a b%20#?é.sqlite"
    sqlite3.connect(path).executescript("CREATE TABLE t (a); INSERT INTO t VALUES (5)")
    connection = connect(path)
    assert connection.execute("SELECT a FROM t").fetchall() == [(5,)]


def test_check_database_names_the_trouble(tmp_path, shop):
    check_database(shop)
    with pytest.raises(InputError, match="no such database"):
        check_database(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("not a database at all")
    with pytest.raises(InputError, match="not a SQLite database"):
        check_database(tmp_path / "text.sqlite")
    Path(f"{shop}-wal").write_bytes(b"unfinished")
    with pytest.raises(InputError, match="unfinished"):
        check_database(shop)


def test_a_lost_worker_costs_the_guilty_candidate_of_a_node_only(shop):
    """A candidate that hangs where only the kernel's alarm reaches it, among innocent ones of the same task."""
    hang = "SELECT replace(hex(zeroblob(7900000)), '0', 'a') GLOB '*" + "a" * 40_000 + "b'"  # one step of many seconds
    queries = ["SELECT COUNT(*) FROM product", hang, "SELECT 3", ""]
    with Executor(workers=1, timeout=0.3) as executor:
        verdicts = asyncio.run(executor.judge_all(shop, queries, "SELECT COUNT(*) FROM product"))
    assert [verdict.ex for verdict in verdicts] == [True, False, True, False]
    assert [verdict.execution.outcome for verdict in verdicts] == ["ok", "timeout", "ok", "no_sql"]
