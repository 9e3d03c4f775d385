"""The executor against an adversarial corpus: exact outcomes, nothing written, nothing leaked; the verdict's laws."""

import asyncio
import contextlib
import gc
import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import InputError
from tests.builders import verdict_here as judge
from tests.conftest import run_script
from tests.shop import SHOP, make_database
from tree import sql_utils
from tree.sql.guarded import STEPS_PER_CHECK, Limits, watch
from tree.sql.results import OUTCOMES, Execution, Verdict
from tree.sql.sandbox import SHOWN_LENGTH
from tree.sql.sandbox import run as run_in_process
from tree.sql.worker import WORKER_FILE, WORKER_MEMORY
from tree.sql_utils import STOPPED, Executor

STEPS = 50_000_000
HARD_WAIT = 60  # seconds; only says that a query came back at all
PATIENT = Limits(600.0, 10**9)
WAREHOUSE = f"""{SHOP}
CREATE TABLE "Größe" ("Länge" REAL, "a;b" TEXT);
INSERT INTO "Größe" VALUES (1.5, 'x -- y'), (2.5, '/* z'), (NULL, '数据');
CREATE INDEX by_name ON product (name);
CREATE VIEW tool AS SELECT * FROM product WHERE category = 'tool';
CREATE VIRTUAL TABLE note USING fts5 (body);
INSERT INTO note VALUES ('a sharp saw'), ('a blunt nail');
CREATE VIRTUAL TABLE box USING rtree (id, low, high);
INSERT INTO box VALUES (1, 0, 1);
"""


# --- the corpus -----------------------------------------------------------------------------------------------------


def endless(body: str, columns: str = "n") -> str:
    return f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT {columns} FROM c {body}"


def counting(last: int) -> str:
    return f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT {last}) SELECT n FROM c"


def nested(opening: str, inner: str, closing: str, depth: int) -> str:
    return f"SELECT {opening * depth}{inner}{closing * depth}"


def doubling(levels: int) -> str:
    """Every WITH table reads the one before twice: 2 ** levels subqueries, made while the query is prepared."""
    tables = [f"c{i} AS (SELECT 1 FROM c{i - 1} x, c{i - 1} y)" for i in range(1, levels)]
    return f"WITH c0 AS (SELECT 1), {', '.join(tables)} SELECT * FROM c{levels - 1}"


def listed(items: object, separator: str = ", ") -> str:
    return separator.join(map(str, items))


# files that a statement would write are named planted…; FOLDER is the database's own folder
WRITES = [
    ("insert", "INSERT INTO product (id) VALUES (9)", "denied"),
    ("insert default", "INSERT INTO product DEFAULT VALUES", "denied"),
    ("insert select", "INSERT INTO product SELECT id + 10, name, 1, 'x' FROM product", "denied"),
    ("insert or replace", "INSERT OR REPLACE INTO product (id) VALUES (1)", "denied"),
    ("replace into", "REPLACE INTO product (id, name) VALUES (1, 'x')", "denied"),
    ("upsert", "INSERT INTO product (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = 'x'", "denied"),
    ("insert returning", "INSERT INTO product (id) VALUES (9) RETURNING id", "denied"),
    ("update", "UPDATE product SET name = 'x'", "denied"),
    ("update from", 'UPDATE product SET name = o.day FROM "order" AS o WHERE o.product_id = product.id', "denied"),
    ("update returning", "UPDATE product SET name = 'x' RETURNING *", "denied"),
    ("delete", "DELETE FROM product", "denied"),
    ("delete returning", "DELETE FROM product WHERE id = 1 RETURNING name", "denied"),
    ("delete limit", "DELETE FROM product ORDER BY id LIMIT 1", "denied"),
    ("cte delete", "WITH t AS (SELECT 1 AS a) DELETE FROM product WHERE id IN (SELECT a FROM t)", "denied"),
    ("cte insert", "WITH t AS (SELECT 9 AS a) INSERT INTO product (id) SELECT a FROM t", "denied"),
    ("cte update", "WITH t AS (SELECT 1 AS a) UPDATE product SET name = (SELECT a FROM t)", "denied"),
    ("hidden delete", "/* SELECT */ -- SELECT\n DeLeTe /**/ FROM product", "denied"),
    ("insert full text", "INSERT INTO note (note) VALUES ('optimize')", "denied"),
    ("insert rtree", "INSERT INTO box VALUES (2, 0, 1)", "denied"),
    ("delete shadow table", "DELETE FROM note_data", "denied"),
    ("update master", "UPDATE sqlite_master SET sql = ''", "error"),
    ("delete master", "DELETE FROM sqlite_master", "error"),
    ("insert master", "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 0, 'CREATE TABLE x (a)')", "denied"),
    ("delete temp master", "DELETE FROM sqlite_temp_master", "error"),
    ("update view", "UPDATE tool SET name = 'x'", "error"),
    ("select into", "SELECT * INTO planted FROM product", "error"),
]
DEFINITIONS = [
    ("create table", "CREATE TABLE t (a)", "denied"),
    ("create table as", "CREATE TABLE t AS SELECT * FROM product", "denied"),
    ("create table if not exists", "CREATE TABLE IF NOT EXISTS product (a)", "denied"),
    ("create temp table", "CREATE TEMP TABLE t (a)", "denied"),
    ("create temp table as", "CREATE TEMPORARY TABLE t AS SELECT 1", "denied"),
    ("create index", "CREATE UNIQUE INDEX i ON product (name)", "denied"),
    ("create view", "CREATE VIEW v AS SELECT 1", "denied"),
    ("create temp view", "CREATE TEMP VIEW v AS SELECT 1", "denied"),
    ("create trigger", "CREATE TRIGGER g AFTER INSERT ON product BEGIN SELECT 1; END", "denied"),
    ("create temp trigger", "CREATE TEMP TRIGGER g AFTER INSERT ON product BEGIN SELECT 1; END", "denied"),
    ("create fts5", "CREATE VIRTUAL TABLE t USING fts5 (a)", "denied"),
    ("create fts4", "CREATE VIRTUAL TABLE t USING fts4 (a)", "denied"),
    ("create rtree", "CREATE VIRTUAL TABLE temp.t USING rtree (a, b, c)", "denied"),
    ("rename table", "ALTER TABLE product RENAME TO goods", "denied"),
    ("add column", "ALTER TABLE product ADD COLUMN x", "denied"),
    ("drop column", "ALTER TABLE product DROP COLUMN category", "denied"),
    ("drop table", "DROP TABLE product", "denied"),
    ("drop table if exists", "DROP TABLE IF EXISTS product", "denied"),
    ("drop nothing", "DROP TABLE IF EXISTS nowhere", "not_a_query"),
    ("drop view", "DROP VIEW tool", "denied"),
    ("drop index", "DROP INDEX by_name", "denied"),
    ("drop full text", "DROP TABLE note", "denied"),
    ("reindex", "REINDEX", "denied"),
    ("reindex table", "REINDEX product", "denied"),
    ("analyze", "ANALYZE", "denied"),
    ("analyze table", "ANALYZE product", "denied"),
]
WAYS_OUT = [
    ("attach", "ATTACH 'planted.sqlite' AS other", "denied"),
    ("attach in folder", "ATTACH DATABASE 'FOLDER/planted.sqlite' AS other", "denied"),
    ("attach memory", "ATTACH ':memory:' AS other", "denied"),
    ("attach writable", "ATTACH 'file:FOLDER/shop.sqlite?mode=rw' AS other", "denied"),
    ("detach", "DETACH main", "denied"),
    ("vacuum", "VACUUM", "denied"),
    ("vacuum into", "VACUUM INTO 'planted.sqlite'", "denied"),
    ("vacuum into folder", "VACUUM main INTO 'FOLDER/planted.sqlite'", "denied"),
    ("begin", "BEGIN", "denied"),
    ("begin immediate", "BEGIN IMMEDIATE TRANSACTION", "denied"),
    ("commit", "COMMIT", "denied"),
    ("end", "END", "denied"),
    ("rollback", "ROLLBACK", "denied"),
    ("savepoint", "SAVEPOINT s", "denied"),
    ("release", "RELEASE s", "denied"),
    ("load_extension", "SELECT load_extension('planted.so')", "denied"),
    ("load_extension in a view of rows", "SELECT name, LOAD_EXTENSION(name, 'x') FROM product", "denied"),
    ("fts3_tokenizer", "SELECT fts3_tokenizer('simple')", "denied"),
    ("fts3_tokenizer pointer", "SELECT hex(fts3_tokenizer('simple', x'0000000000000000'))", "denied"),
    ("readfile", "SELECT readfile('/etc/passwd')", "error"),
    ("writefile", "SELECT writefile('planted.txt', 'x')", "error"),
    ("edit", "SELECT edit('x', 'touch planted.txt')", "error"),
    ("eval", "SELECT eval('DELETE FROM product')", "error"),
    ("other files of the process", "SELECT * FROM pragma_database_list", "denied"),
    ("pages of the file", "SELECT * FROM dbstat", "denied"),
    ("statements of the connection", "SELECT * FROM sqlite_stmt", "denied"),
    ("compile options", "SELECT * FROM pragma_compile_options", "denied"),
    ("dot command", ".shell touch planted.txt", "error"),
]
PRAGMAS = [
    ("writable_schema", "PRAGMA writable_schema = 1", "denied"),
    ("journal_mode", "PRAGMA journal_mode = WAL", "denied"),
    ("temp_store_directory", "PRAGMA temp_store_directory = 'FOLDER'", "denied"),
    ("cell_size_check", "PRAGMA cell_size_check = 1", "denied"),
    ("table_info", "PRAGMA table_info(product)", "denied"),
    ("hard_heap_limit", "PRAGMA hard_heap_limit = 0", "denied"),
    ("query_only", "PRAGMA main.query_only = 0", "denied"),
    ("pragma after a comment", "-- x\n/* y */ PRAGMA user_version = 5", "denied"),
    ("pragma in mixed case", "pRaGmA table_info(product)", "denied"),
    ("pragma after a byte order mark", "\ufeffPRAGMA table_info(product)", "denied"),
    ("pragma after comment and mark", "/* x */\ufeff PRAGMA hard_heap_limit", "denied"),
    ("pragma wal_checkpoint", "PRAGMA wal_checkpoint(TRUNCATE)", "denied"),
    ("pragma optimize", "PRAGMA optimize", "denied"),
]
BOMBS = [
    ("endless count", endless("", "COUNT(*)"), "timeout"),
    ("endless filter", endless("WHERE n < 0"), "timeout"),
    (
        "endless product",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION SELECT a.n + 1 FROM c AS a, product) SELECT * FROM c WHERE n < 0",
        "timeout",
    ),
    ("cross join", "SELECT COUNT(*) FROM " + listed(f"product AS p{i}" for i in range(30)), "timeout"),
    ("many joins", "SELECT COUNT(*) FROM " + listed((f"product p{i}" for i in range(60)), " JOIN "), "timeout"),
    ("too many joins", "SELECT COUNT(*) FROM " + listed(f"product p{i}" for i in range(65)), "error"),
    ("sort of big rows", endless("ORDER BY 1 DESC", "zeroblob(100000) || n"), {"timeout", "too_large"}),
    ("big distinct rows", endless("", "DISTINCT hex(randomblob(50000))"), {"timeout", "too_large"}),
    ("many big rows", endless("", "hex(zeroblob(500000))"), {"timeout", "too_large"}),
    ("sum of big blobs", endless("LIMIT 200", "SUM(length(zeroblob(15000000)))"), "timeout"),
    ("group_concat", endless("", "group_concat(hex(zeroblob(1000)))"), {"timeout", "too_large"}),
    ("json_group_array", endless("", "json_group_array(hex(zeroblob(1000)))"), {"timeout", "too_large"}),
    ("subqueries while preparing", doubling(22), {"timeout", "too_large"}),
    ("zeroblob", "SELECT zeroblob(2000000000)", "too_large"),
    ("zeroblob of everything", "SELECT zeroblob(9223372036854775807)", "too_large"),
    ("randomblob", "SELECT randomblob(2000000000)", "too_large"),
    ("hex", "SELECT hex(zeroblob(9000000))", "too_large"),
    ("hex of hex", "SELECT hex(hex(hex(hex(zeroblob(2000000)))))", "too_large"),
    ("quote", "SELECT quote(zeroblob(9000000))", "too_large"),
    ("replace", "SELECT replace(hex(zeroblob(7000000)), '0', 'aaaaaaaaaa')", "too_large"),
    ("concatenation", "SELECT a || a FROM (SELECT hex(zeroblob(7000000)) AS a)", "too_large"),
    # text that printf cannot hold is NULL to SQLite, not an error
    ("printf", "SELECT printf('%.*c', 20000000, 'x')", "ok"),
    ("printf width", "SELECT printf('%20000000d', 1)", "ok"),
    ("char", "SELECT char(" + listed(["1114111"] * 120) + ")", "ok"),
    ("like pattern", "SELECT printf('%.300000c', 'a') LIKE '" + "%a_" * 1000 + "b'", "ok"),
    ("glob pattern", "SELECT printf('%.100000c', 'a') GLOB '" + "*a?" * 1000 + "b'", "ok"),
    ("like pattern too long", f"SELECT 'a' LIKE printf('%.50001c', '{'%'}')", "error"),
    ("wide row of big values", "SELECT " + listed(f"zeroblob(5000000) AS c{i}" for i in range(40)), "ok"),
]
SHAPES = [
    ("nested parentheses", nested("(", "1", ")", 60), "ok"),
    ("deeply nested parentheses", nested("(", "1", ")", 2000), "error"),
    ("deeply nested functions", nested("abs(", "1", ")", 500), "error"),
    ("deeply nested cases", nested("CASE WHEN 1 THEN ", "1", " END", 500), "error"),
    ("deeply nested subqueries", nested("* FROM (SELECT ", "1", ")", 200), "error"),
    ("deeply nested scalar subqueries", nested("(SELECT ", "1", ")", 200), "error"),
    ("deeply nested NOT", nested("NOT ", "1", "", 2000), "error"),
    ("deep sum", "SELECT " + listed(["1"] * 300, "+"), "ok"),
    ("too deep sum", "SELECT " + listed(["1"] * 1000, "+"), "error"),
    ("deep json", f"SELECT COUNT(*) FROM json_tree('{'[' * 1500}{']' * 1500}')", "ok"),
    ("too deep json", f"SELECT json('{'[' * 5000}{']' * 5000}')", "error"),
    ("IN list of 5000", f"SELECT name FROM product WHERE id IN ({listed(range(5000))})", "ok"),
    ("IN list of 15000", f"SELECT name FROM product WHERE id IN ({listed(range(15000))})", "ok"),
    ("IN list of 50000", f"SELECT name FROM product WHERE id IN ({listed(range(50000))})", "error"),
    ("20000 rows of VALUES", f"VALUES {listed(['(1)'] * 20_000, ',')}", "ok"),
    ("UNION of 100", "SELECT " + listed(["1"] * 100, " UNION ALL SELECT "), "ok"),
    ("UNION of 101", "SELECT " + listed(["1"] * 101, " UNION ALL SELECT "), "error"),
    ("1000 columns", "SELECT " + listed(range(1000)), "ok"),
    ("1001 columns", "SELECT " + listed(range(1001)), "error"),
    ("query of 99 kB", f"SELECT '{'a' * 99_000}'", "ok"),
    ("query of 1 MB", f"SELECT '{'a' * 1_000_000}'", "error"),
    ("name of 90 kB", f"SELECT {'a' * 90_000} FROM product", "error"),
    ("too many arguments", f"SELECT max({listed(range(200))})", "error"),
    ("a parameter", "SELECT ?", "error"),
    ("a named parameter", "SELECT * FROM product WHERE id = :id", "error"),
    ("NUL in text", "SELECT 'a\0b'", "error"),
    ("NUL before a write", "\0DELETE FROM product", "error"),
    ("NUL after a query", "SELECT 1;\0DELETE FROM product", "error"),
    ("lone surrogate", "SELECT '\ud800'", "error"),
    ("lone surrogate as a name", "SELECT \udfff FROM product", "error"),
    ("surrogate made by SQLite", "SELECT char(55296), CAST(x'ff' AS TEXT)", "ok"),
    ("surrogate in an error", "SELECT json_extract('{}', char(55296))", "error"),
    ("overflow", "SELECT abs(-9223372036854775807 - 1)", "error"),
    ("sum overflow", "SELECT SUM(9223372036854775807) FROM product", "error"),
    ("not SQL", "I am sorry, but I cannot answer that.", "error"),
    ("Markdown fence", "```sql\nSELECT 1\n```", "error"),
    ("no such function", 'SELECT YEAR(day) FROM "order"', "error"),
    ("no such collation", "SELECT name FROM product ORDER BY name COLLATE german", "error"),
    ("empty", "", "no_sql"),
    ("white space", " \n\t ", "not_a_query"),
    ("semicolons", " ; ; ", "not_a_query"),
    ("only a line comment", "-- nothing", "not_a_query"),
    ("only an open comment", "/* nothing", "not_a_query"),
    ("only a byte order mark", "\ufeff", "not_a_query"),
    ("two queries", "SELECT 1; SELECT 2", "not_a_query"),
    ("a query and a write", "SELECT 1; DROP TABLE product", "not_a_query"),
    ("a query, a comment and a write", "SELECT 1; /* x */ DELETE FROM product", "not_a_query"),
    ("explain", "EXPLAIN SELECT 1", "not_a_query"),
    ("explain query plan", "explain query plan SELECT * FROM product", "not_a_query"),
    ("explain after comments", "-- a\n/* b */ -- c\nEXPLAIN SELECT 1", "not_a_query"),
    ("explain after a comment with a slash", "/*/ EXPLAIN */ EXPLAIN QUERY PLAN SELECT 1", "not_a_query"),
    ("explain after a byte order mark", "\ufeffEXPLAIN SELECT 1", "not_a_query"),
    ("explain a write", "EXPLAIN DELETE FROM product", "not_a_query"),
]
HARMLESS = [
    ("window", "SELECT name, ROW_NUMBER() OVER (PARTITION BY category ORDER BY id) FROM product", "ok"),
    (
        "window frame",
        'SELECT SUM(pieces) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM "order"',
        "ok",
    ),
    ("named window", "SELECT RANK() OVER w FROM product WINDOW w AS (ORDER BY category)", "ok"),
    ("filter", "SELECT COUNT(*) FILTER (WHERE category = 'tool') FROM product", "ok"),
    ("json_extract", "SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]'), '{\"a\": 1}' ->> 'a'", "ok"),
    ("json_each", "SELECT value FROM json_each('[1, 2, 3]')", "ok"),
    ("json_tree", 'SELECT fullkey FROM json_tree(\'{"a": {"b": 1}}\')', "ok"),
    ("pragma function", "SELECT name FROM pragma_table_info('product')", "ok"),
    ("pragma function joined", "SELECT m.name, i.name FROM sqlite_master AS m, pragma_table_info(m.name) AS i", "ok"),
    ("sqlite_master", "SELECT name, sql FROM sqlite_master WHERE type = 'table'", "ok"),
    ("sqlite_schema", "SELECT COUNT(*) FROM sqlite_schema", "ok"),
    ("recursion to 1000", counting(1000), "ok"),
    (
        "recursive dates",
        "WITH RECURSIVE d(day) AS (VALUES ('2024-01-01') UNION ALL SELECT date(day, '+1 day') FROM d LIMIT 366)"
        " SELECT day FROM d",
        "ok",
    ),
    ("dates", "SELECT strftime('%Y', day), julianday(day), date(day, 'start of month') FROM \"order\"", "ok"),
    ("now", "SELECT date('now'), CURRENT_TIMESTAMP", "ok"),
    ("values", "VALUES (1, 'a'), (2, 'b')", "ok"),
    ("with", "WITH t AS (SELECT id FROM product), u AS (SELECT * FROM t) SELECT * FROM u", "ok"),
    ("cast", "SELECT CAST(id AS REAL) / 2, CAST('12abc' AS INTEGER) FROM product", "ok"),
    ("collate", "SELECT name FROM product WHERE name = 'SAW' COLLATE NOCASE", "ok"),
    (
        "nested subqueries",
        "SELECT name FROM product WHERE id IN"
        ' (SELECT product_id FROM "order" WHERE pieces > (SELECT AVG(pieces) FROM "order"))',
        "ok",
    ),
    (
        "correlated exists",
        'SELECT name FROM product p WHERE NOT EXISTS (SELECT 1 FROM "order" o WHERE o.product_id = p.id)',
        "ok",
    ),
    ("outer joins", 'SELECT * FROM product LEFT JOIN "order" ON product.id = product_id', "ok"),
    ("full join", 'SELECT * FROM product FULL JOIN "order" ON product.id = product_id', "ok"),
    ("set operations", 'SELECT id FROM product EXCEPT SELECT product_id FROM "order" INTERSECT SELECT 3', "ok"),
    ("semicolons and comment signs in text", "SELECT 'a; DROP TABLE product; -- b /* c', '/*'", "ok"),
    ("trailing semicolon and comment", "SELECT 1; -- done", "ok"),
    ("trailing block comment", "SELECT 1; /* done */ ", "ok"),
    ("unclosed trailing comment", "SELECT 1 /* done", "ok"),
    ("comments everywhere", "/* a */SELECT--b\n/**/1/***/", "ok"),
    ("byte order mark", "\ufeffSELECT name FROM product", "ok"),
    ("unicode names", 'SELECT "Länge", "a;b" FROM "Größe"', "ok"),
    ("unicode names without quotes", "SELECT Länge AS 長さ FROM Größe", "ok"),
    ("unicode text", "SELECT * FROM Größe WHERE \"a;b\" = '数据' OR '🦊' = 'é'", "ok"),
    ("brackets and backticks", "SELECT [Unit Price (EUR)], `name` FROM [product]", "ok"),
    ("view", "SELECT name FROM tool", "ok"),
    ("full text", "SELECT body FROM note WHERE note MATCH 'saw'", "ok"),
    ("rtree", "SELECT id FROM box WHERE low <= 0.5 AND high >= 0.5", "ok"),
    ("mathematics", "SELECT round(sqrt(pow(id, 2)), 2), id % 2, id << 1 FROM product", "ok"),
    ("text functions", "SELECT upper(name), substr(name, 1, 2), instr(name, 'a'), trim(name) FROM product", "ok"),
    ("like", "SELECT name FROM product WHERE name LIKE 's%' ESCAPE '\\'", "ok"),
    ("random", "SELECT name FROM product ORDER BY random()", "ok"),
    ("no rows", "SELECT name FROM product WHERE id = 99", "empty"),
    ("no rows of a join", 'SELECT 1 FROM product JOIN "order" USING (id) WHERE 0', "empty"),
    ("limit 0", "SELECT * FROM product LIMIT 0", "empty"),
]
CORPUS = WRITES + DEFINITIONS + WAYS_OUT + PRAGMAS + BOMBS + SHAPES + HARMLESS


# --- running it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What this process holds that a pool could leave behind."""

    threads: frozenset[threading.Thread]
    files: int
    children: tuple


def held() -> Held:
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    return Held(frozenset(threading.enumerate()), files, tuple(multiprocessing.active_children()))


@dataclass(frozen=True)
class Record:
    """One run of the corpus: executions by name, what each left on disk, and the pool's traces."""

    executions: dict[str, Execution]
    changed: dict[str, object]
    afterwards: Execution
    peaks: list[int]  # bytes, of the worker that was there after each statement
    limits: tuple
    before: Held
    after: Held


def peak_memory(process: int) -> int:
    """The most physical memory, in bytes, that a process has used so far; 0 when it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


def on_disk(path: Path) -> tuple:
    """All that a statement could change: the database, its folder, planted files where the workers are."""
    planted = sorted(str(file) for file in Path.cwd().glob("planted*"))
    return hashlib.sha256(path.read_bytes()).hexdigest(), sorted(os.listdir(path.parent)), planted


async def run_corpus(executor: Executor, path: Path) -> tuple:
    executions, changed, peaks, limits = {}, {}, [], None
    before = on_disk(path)
    for name, sql, _ in CORPUS:
        sql = sql.replace("FOLDER", str(path.parent))
        executions[name] = await asyncio.wait_for(executor.execute(path, sql), HARD_WAIT)
        if on_disk(path) != before:
            changed[name] = on_disk(path)
        for worker in multiprocessing.active_children():
            peaks.append(peak_memory(worker.pid))
            if limits is None:
                limits = tuple(resource.prlimit(worker.pid, r) for r in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE))
    return executions, changed, await executor.execute(path, "SELECT name FROM product"), peaks, limits


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    path = make_database(tmp_path_factory.mktemp("corpus") / "shop" / "shop.sqlite", WAREHOUSE)
    with Executor(workers=1) as first:  # what multiprocessing starts once and keeps is no leak
        asyncio.run(first.execute(path, "SELECT 1"))
    before = held()
    with Executor(workers=1, timeout=2, steps=STEPS) as executor:
        found = asyncio.run(run_corpus(executor, path))
    return Record(*found, before, held())


def test_the_corpus_is_large_and_its_names_unique():
    assert len({name for name, _, _ in CORPUS}) == len(CORPUS) >= 90


@pytest.mark.parametrize(("name", "expected"), [pytest.param(name, want, id=name) for name, _, want in CORPUS])
def test_statement(record, name, expected):
    execution = record.executions[name]
    wanted = {expected} if isinstance(expected, str) else expected
    assert wanted <= set(OUTCOMES)
    assert execution.outcome in wanted, execution.error
    assert name not in record.changed
    assert bool(execution.error) == (execution.outcome not in ("ok", "empty", "no_sql"))
    assert all(len(v) <= SHOWN_LENGTH for row in execution.rows for v in row if isinstance(v, str | bytes))


def test_the_pool_survives_the_corpus_and_leaves_nothing_behind(record):
    assert record.afterwards.outcome == "ok"
    assert record.afterwards.row_count == 3
    assert record.after.children == ()
    assert record.after.threads == record.before.threads
    assert record.after.files == record.before.files


def test_the_memory_of_the_workers_stays_bounded(record):
    assert record.limits == ((WORKER_MEMORY, WORKER_MEMORY), (WORKER_FILE, WORKER_FILE))
    assert 0 < max(record.peaks) < WORKER_MEMORY  # 1.8e9 bytes measured with SQLite 3.40.1


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    return make_database(tmp_path / "shop" / "shop.sqlite", WAREHOUSE)


def steps_needed(path: Path, sql: str) -> int:
    """The smallest budget, in whole checks, that lets a query end."""
    low, high = 0, 10_000
    while low < high:
        middle = (low + high) // 2
        execution, _ = run_in_process(str(path), sql, Limits(600.0, middle * STEPS_PER_CHECK))
        low, high = (low, middle) if execution.outcome == "ok" else (middle + 1, high)
    return low * STEPS_PER_CHECK


@pytest.mark.parametrize("sql", [counting(30_000), "SELECT COUNT(*) FROM " + listed(f"product p{i}" for i in range(9))])
def test_the_step_budget_is_the_same_in_every_run(warehouse, sql):
    needed = steps_needed(warehouse, sql)
    assert needed == steps_needed(warehouse, sql) > STEPS_PER_CHECK
    outcomes = []
    for steps in (needed, needed - STEPS_PER_CHECK):
        with Executor(workers=1, timeout=600, steps=steps) as executor:
            outcomes.append(asyncio.run(executor.execute(warehouse, sql)).outcome)
    assert outcomes == ["ok", "timeout"]


# one step of SQLite's virtual machine, and about 10 ** 11 comparisons: its progress handler is not asked meanwhile
HANGING = "SELECT replace(hex(zeroblob(7900000)), '0', 'a') GLOB '*" + "a" * 40_000 + "b'"


def _hang(seconds: float) -> None:
    """In a worker: outlive an alarm."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    time.sleep(30)


def _take_memory(size: int) -> int:
    """In a worker: more than it may have."""
    return len(bytearray(size))


def _sort_with_little_disk(path: str) -> Execution:
    """In a worker: a sort that needs a temporary file of 50 MB, when files may have 5 MB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, WORKER_FILE))
    return run_in_process(
        path, counting(50).replace("SELECT n", "SELECT zeroblob(1000000) || n") + " ORDER BY 1", PATIENT
    )[0]


def test_the_alarm_kills_a_worker_that_hangs(warehouse):
    async def scenario(executor: Executor) -> list[str]:
        await executor.execute(warehouse, "SELECT 1")
        hangs = await executor.execute(warehouse, HANGING)
        well = await executor.execute(warehouse, "SELECT 1")
        sleeps = await executor._send(_hang, 0.5)
        return [hangs.outcome, well.outcome, sleeps.outcome, (await executor.execute(warehouse, "SELECT 1")).outcome]

    with Executor(workers=1, timeout=0.3) as executor:
        assert asyncio.run(asyncio.wait_for(scenario(executor), HARD_WAIT)) == ["timeout", "ok", "timeout", "ok"]


@pytest.fixture
def quick_death(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Workers are killed half a second past the limit; how often one was, for which task."""
    deaths: Counter = Counter()

    async def counted(self: Executor, task: Callable, *arguments, **settings):
        found = await send(self, task, *arguments, **settings)
        deaths.update([task.__name__] if isinstance(found, Execution) and found.error == STOPPED else [])
        return found

    send = Executor._send
    monkeypatch.setattr(Executor, "_send", counted)
    monkeypatch.setattr(sql_utils, "KILL_AFTER", 0.5)
    return deaths


def hanging_unless(condition: str, query: str) -> str:
    """A query that hangs in one step where the condition does not hold."""
    return f"{query} AND CASE WHEN {condition} THEN 1 ELSE ({HANGING}) END"


GOLD = "SELECT name FROM product WHERE id > 0"
ON_INSTANCES = hanging_unless("(SELECT COUNT(*) FROM product) = 3", GOLD)


def verdicts_of(executor: Executor, path: Path, sqls: list[str], gold: str) -> list[tuple[str, bool, str]]:
    verdicts = asyncio.run(asyncio.wait_for(executor.judge_all(path, sqls, gold), HARD_WAIT))
    return [(verdict.execution.outcome, verdict.ex, verdict.gold.outcome) for verdict in verdicts]


def test_a_candidate_that_hangs_alone_takes_its_time_once(warehouse, quick_death):
    with Executor(workers=1, timeout=0.3) as executor:
        assert verdicts_of(executor, warehouse, [HANGING], GOLD) == [("timeout", False, "ok")]
    assert quick_death == {"judge_all": 1}


def test_candidates_that_hang_take_their_time_twice_at_most_and_their_neighbours_once(warehouse, quick_death):
    sqls = [GOLD, HANGING, "SELECT 1", HANGING + " || ''", "", GOLD + " "]
    with Executor(workers=1, timeout=0.3) as executor:
        assert verdicts_of(executor, warehouse, sqls, GOLD) == [
            ("ok", True, "ok"),
            ("timeout", False, "ok"),
            ("ok", False, "ok"),
            ("timeout", False, "ok"),
            ("no_sql", False, "ok"),
            ("ok", True, "ok"),
        ]
    assert quick_death == {"judge_all": 3}  # all together, then the two alone


def test_gold_that_hangs_is_run_twice_at_most(warehouse, quick_death):
    with Executor(workers=1, timeout=0.3) as executor:
        for _ in range(2):
            found = verdicts_of(executor, warehouse, [GOLD, ""], HANGING)
            assert found == [("ok", False, "timeout"), ("no_sql", False, "timeout")]
            assert asyncio.run(executor.run_gold(warehouse, HANGING)).outcome == "timeout"
    assert quick_death == {"judge_all": 1, "execute_gold": 1}


@pytest.mark.parametrize("others", [[], ["SELECT name FROM product WHERE id < 9"]])
def test_what_hangs_on_an_instance_only_is_right_and_not_fragile(warehouse, quick_death, tmp_path, others):
    with Executor(workers=1, timeout=0.3, perturbed=tmp_path / "perturbed") as executor:
        assert asyncio.run(executor.prepare(warehouse)) == ("", {})
        sqls = [ON_INSTANCES, *others, "SELECT name FROM product WHERE name IN ('saw', 'nail', 'Säge')", "SELECT 1"]
        verdicts = asyncio.run(asyncio.wait_for(executor.judge_all(warehouse, sqls, GOLD), HARD_WAIT))
    assert [verdict.ex for verdict in verdicts] == [True, *(True for _ in others), True, False]
    assert [verdict.execution.outcome for verdict in verdicts] == ["ok"] * len(sqls)
    assert not any("fragile" in verdict.execution.flags for verdict in verdicts)
    assert quick_death == {"find_fragile": 2}


def test_gold_that_hangs_on_an_instance_only_calls_nothing_fragile(warehouse, quick_death, tmp_path):
    with Executor(workers=1, timeout=0.3, perturbed=tmp_path / "perturbed") as executor:
        asyncio.run(executor.prepare(warehouse))
        verdict = asyncio.run(asyncio.wait_for(executor.judge(warehouse, GOLD, ON_INSTANCES), HARD_WAIT))
    assert (verdict.ex, verdict.execution.flags, verdict.gold.outcome) == (True, (), "ok")
    assert quick_death == {"find_fragile": 1}


@pytest.mark.parametrize(
    ("sql", "gold", "expected", "deaths"),
    [
        (HANGING, GOLD, ("timeout", False), {"judge_all": 1}),
        (HANGING, "", ("timeout", None), {"judge_all": 1}),
        (GOLD, HANGING, ("ok", None), {"judge_all": 1, "execute_gold": 1}),
        ("", HANGING, ("no_sql", None), {"judge_all": 1, "execute_gold": 1}),
        (HANGING, HANGING + " || ''", ("timeout", None), {"judge_all": 2, "execute_gold": 1}),
    ],
)
def test_what_hangs_while_it_is_observed(warehouse, quick_death, sql, gold, expected, deaths):
    with Executor(workers=1, timeout=0.3) as executor:
        result = asyncio.run(asyncio.wait_for(executor.observe(warehouse, sql, gold), HARD_WAIT))
    assert (result.outcome, result.ex) == expected
    assert quick_death == deaths


def _fill_disk(path: str, parts: int, then: str) -> Execution:
    """In a worker that stops at 40 MB of temporary files: subqueries of 15 MB, each in a file of its own."""
    threading.Thread(target=watch, args=(40_000_000,), daemon=True).start()
    rows = f"SELECT zeroblob(1000000) || n AS big FROM ({counting(15)})"
    tables = listed(f"p{number} AS MATERIALIZED ({rows})" for number in range(parts))
    joined = listed(f"(SELECT big FROM p{number} LIMIT 1 OFFSET 14) AS q{number}" for number in range(parts))
    return run_in_process(path, f"WITH {tables}, e AS ({then}) SELECT COUNT(*) FROM {joined}, e", PATIENT)[0]


@pytest.mark.parametrize(("parts", "then", "expected"), [(2, "SELECT 1", "ok"), (6, endless(""), "too_large")])
def test_temporary_files_are_limited_together(warehouse, parts, then, expected):
    with Executor(workers=1) as executor:
        found = asyncio.run(executor._send(_fill_disk, str(warehouse), parts, then))
        assert found.outcome == expected, found.error
        assert asyncio.run(executor.execute(warehouse, "SELECT 1")).outcome == "ok"


def test_too_much_memory_or_disk_costs_the_query_only(warehouse):
    async def scenario(executor: Executor) -> list[str]:
        memory = await executor._send(_take_memory, 2 * WORKER_MEMORY)
        disk = await executor._send(_sort_with_little_disk, str(warehouse))
        return [memory.outcome, disk.outcome, (await executor.execute(warehouse, "SELECT 1")).outcome]

    with Executor(workers=1) as executor:
        assert asyncio.run(asyncio.wait_for(scenario(executor), HARD_WAIT)) == ["too_large", "too_large", "ok"]


def test_a_damaged_database_is_an_error_that_names_it(warehouse):
    damaged = warehouse.with_name("damaged.sqlite")
    damaged.write_bytes(warehouse.read_bytes()[:5000])
    with Executor(workers=1) as executor:
        with pytest.raises(InputError, match="damaged.sqlite: database disk image is malformed"):
            asyncio.run(executor.execute(damaged, "SELECT 1"))
        assert asyncio.run(executor.execute(warehouse, "SELECT 1")).outcome == "ok"


def test_a_broken_view_costs_only_the_queries_that_read_it(tmp_path):
    path = make_database(
        tmp_path / "old.sqlite",
        "CREATE TABLE gone (a); CREATE VIEW v AS SELECT * FROM gone; CREATE TABLE t (a); INSERT INTO t VALUES (1);"
        "PRAGMA legacy_alter_table = 1; DROP TABLE gone",
    )
    assert run_in_process(str(path), "SELECT a FROM t", PATIENT)[0].outcome == "ok"
    assert run_in_process(str(path), "SELECT * FROM v", PATIENT)[0].outcome == "error"


# --- the gold cache -------------------------------------------------------------------------------------------------


def judged(path: Path, cache: Path, sql: str, gold: str) -> Verdict:
    """The verdict of a fresh pool, whose worker remembers nothing, after the preflight of its gold."""
    with Executor(workers=1, gold_cache=cache) as executor:
        asyncio.run(executor.run_gold(path, gold))
        return asyncio.run(executor.judge(path, sql, gold))


def test_gold_runs_once_for_all_pools_and_again_when_its_file_is_damaged(warehouse, tmp_path):
    cache, gold = tmp_path / "cache", "SELECT COUNT(*) FROM product"
    with Executor(workers=1, gold_cache=cache) as executor:
        first = asyncio.run(executor.run_gold(warehouse, gold))
        assert asyncio.run(executor.judge(warehouse, "SELECT 3", gold)).ex
    assert first.rows == ((3,),)
    [kept] = cache.rglob("*.pickle")
    execution, rows = pickle.loads(kept.read_bytes())
    assert (execution, rows) == (first, [(3,)])

    # an answer that only the file can have given
    kept.write_bytes(pickle.dumps((Execution("ok", rows=((42,),), row_count=1), [(42,)])))
    assert judged(warehouse, cache, "SELECT 42", gold).ex

    for damage in (b"", b"not a pickle", pickle.dumps((execution, rows))[:-20]):
        kept.write_bytes(damage)
        verdict = judged(warehouse, cache, "SELECT 3", gold)
        assert (verdict.ex, verdict.gold.rows) == (True, ((3,),))
        assert pickle.loads(kept.read_bytes())[1] == [(3,)]


def test_a_changed_database_has_another_place_in_the_cache(warehouse, tmp_path):
    cache, gold = tmp_path / "cache", "SELECT COUNT(*) FROM product"
    assert judged(warehouse, cache, "SELECT 3", gold).ex
    connection = sqlite3.connect(warehouse)
    connection.execute("INSERT INTO product (id) VALUES (4)")
    connection.commit()
    connection.close()
    assert judged(warehouse, cache, "SELECT 4", gold).ex
    assert len(list(cache.rglob("*.pickle"))) == 2
    assert len(os.listdir(cache)) == 2


# --- what a verdict says --------------------------------------------------------------------------------------------


def test_reading_stops_when_a_long_result_is_proven_wrong(warehouse):
    verdict = judge(warehouse, counting(5000).replace("SELECT n FROM", "SELECT -n FROM"), counting(5000))
    assert (verdict.execution.outcome, verdict.execution.more, verdict.ex, verdict.strict) == ("ok", True, False, False)
    assert verdict.execution.row_count < 5000


def test_a_long_right_result_is_read_to_its_end(warehouse):
    verdict = judge(warehouse, counting(5000) + " ", counting(5000))
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
    verdict = judge(warehouse, sql, "SELECT name FROM product WHERE id = 98")
    assert verdict.execution.outcome in ("ok", "empty"), verdict.execution.error
    assert set(verdict.execution.flags) == flags


@pytest.mark.parametrize(
    ("sql", "error", "nearest"),
    [
        ("SELECT nme FROM product", "no such column: nme", "product.name"),
        ("SELECT p.nme FROM product AS p", "no such column: p.nme", "product.name"),
        ("SELECT * FROM products", "no such table: products", "product"),
        ("SELECT * FROM orders", "no such table: orders", "order"),
        ("SELECT Laenge FROM Größe", "no such column: Laenge", "Größe.Länge"),
    ],
)
def test_errors_name_what_is_near(warehouse, sql, error, nearest):
    execution, _ = run_in_process(str(warehouse), sql, PATIENT)
    assert (execution.outcome, execution.error) == ("error", error)
    assert execution.nearest[0] == nearest


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


def rows_of(path: Path, sql: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database for many examples."""
    return make_database(tmp_path_factory.mktemp("laws") / "shop.sqlite")


@given(pairs_of_tables)
def test_ex_is_equality_of_sets_and_strict_of_multisets(steady, both):
    sql, gold = map(values_query, both)
    rows, gold_rows = rows_of(steady, sql), rows_of(steady, gold)
    verdict = judge(steady, sql, gold)
    assert verdict.ex == (set(rows) == set(gold_rows))
    assert verdict.strict == (Counter(rows) == Counter(gold_rows))
    assert verdict.strict <= verdict.ex
    assert ("both_empty" in verdict.execution.flags) == (not rows and not gold_rows)


@given(tables, st.sampled_from(["", " ORDER BY 1", " ORDER BY 2 DESC", " LIMIT 3"]))
def test_a_query_matches_itself(steady, rows, ending):
    verdict = judge(steady, values_query(rows) + ending, values_query(rows) + ending)
    assert verdict.ex
    assert verdict.strict


@given(tables, st.randoms(use_true_random=False))
def test_order_counts_only_when_the_outermost_gold_query_orders(steady, rows, random):
    shuffled = random.sample(rows, len(rows))
    sql, gold = values_query(shuffled), values_query(rows)
    inner = f"SELECT * FROM ({gold} ORDER BY 1, 2)"
    for unordered in (gold, inner):
        verdict = judge(steady, sql, unordered)
        assert (verdict.ex, verdict.strict) == (True, True)
    verdict = judge(steady, sql, f"{gold} ORDER BY 1, 2")
    assert verdict.ex
    assert verdict.strict == (rows_of(steady, sql) == rows_of(steady, f"{gold} ORDER BY 1, 2"))


@given(tables.filter(bool), st.integers(1, 3))
def test_repetition_counts_for_strict_only(steady, rows, times):
    verdict = judge(steady, values_query(rows * times), values_query(rows))
    assert (verdict.ex, verdict.strict) == (True, times == 1)


# --- the bundled demo dataset ---------------------------------------------------------------------------------------


def test_every_gold_query_of_the_demo_matches_itself(tmp_path):
    done = run_script("data/build_demo.py", "--output_dir", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    questions = json.loads((tmp_path / "demo" / "train.json").read_text(encoding="utf-8"))
    failed = []
    for row in questions:
        path = tmp_path / "demo" / "train_databases" / row["db_id"] / f"{row['db_id']}.sqlite"
        verdict = judge(path, row["SQL"], row["SQL"])
        if not (verdict.gold.outcome == "ok" and verdict.ex and verdict.strict):
            failed.append((row["SQL"], verdict))
    assert len(questions) >= 120
    assert failed == []


def test_a_table_named_in_other_letters_is_no_constant(warehouse):
    execution, _ = run_in_process(str(warehouse), "SELECT COUNT(*) FROM PRODUCT", PATIENT)
    assert "constant" not in execution.flags
