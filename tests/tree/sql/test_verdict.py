"""Results of gold, kept for as long as they are true, and whole results of candidates."""

import asyncio
import os
import pickle
import sqlite3
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.builders import verdict_here
from tests.conftest import make_database
from tree.prompts import execution_feedback
from tree.sql import verdict
from tree.sql.guarded import Limits
from tree.sql.results import Execution, Result, Verdict
from tree.sql.sandbox import run
from tree.sql.verdict import JudgeSettings, gold_result, judge, rows_digest, run_gold
from tree.sql_utils import Executor

LIMITS = Limits(5.0, 10**8)


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
        observed = asyncio.run(executor.observe(shop, sql, gold))
        assert observed.feedback == execution_feedback(asyncio.run(executor.execute(shop, sql)))
        return Result(observed.outcome, observed.digest, observed.ex)

    gold = "SELECT name FROM product"
    # wrong from the first row on, and longer than what `judge` reads of such a result
    many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n"
    with Executor(workers=1) as executor:
        right = result('SELECT name AS "Name" FROM product ORDER BY 1', gold)
        wrong = result("SELECT id FROM product", gold)
        assert (right.ex, right.outcome, wrong.ex) == (True, "ok", False) and right.digest != wrong.digest
        assert result(gold, "") == Result("ok", right.digest, None)
        assert result("SELECT nothing", gold) == Result("error", "", False) and result("", "").outcome == "no_sql"
        assert result(gold, "SELECT nothing").ex is None  # gold does not run
        assert result(many.format(3000), gold).digest != result(many.format(2999), gold).digest


# --- what is kept of gold -------------------------------------------------------------------------------------------

GOLD = "SELECT name FROM product WHERE id = 1"


def rename(path: Path, name: str) -> None:
    """Other rows in the same file, of the same length."""
    connection = sqlite3.connect(path)
    connection.execute("UPDATE product SET name = ? WHERE id = 1", (name,))
    connection.commit()
    connection.close()


def replace(path: Path, name: str) -> None:
    """Another file in its place."""
    other = make_database(path.with_name("other.sqlite"))
    rename(other, name)
    os.replace(other, path)


@pytest.mark.parametrize("change", [rename, replace])
@pytest.mark.parametrize("folder", [None, "gold"])
def test_a_worker_sees_a_database_that_changes_under_it(shop, tmp_path, change, folder):
    settings = JudgeSettings(LIMITS, folder and tmp_path / folder)
    for name in ("saw", "axe", "hoe", "saw"):
        change(shop, name)
        gold, rows, _ = gold_result(str(shop), GOLD, settings)
        assert rows == [(name,)] == list(gold.rows)
        assert run_gold(str(shop), GOLD, settings, keep=True)[1] == [(name,)]
        assert judge(str(shop), f"SELECT '{name}'", GOLD, settings).ex


def test_nothing_is_kept_of_a_database_that_changes_while_gold_runs(shop, tmp_path, monkeypatch):
    settings = JudgeSettings(LIMITS, tmp_path / "gold")

    def disturbed(path: str, sql: str, limits: Limits):
        found = run(path, sql, limits)
        rename(shop, "axe")
        return found

    monkeypatch.setattr(verdict, "run", disturbed)
    assert run_gold(str(shop), GOLD, settings, keep=True)[1] == [("saw",)]
    monkeypatch.setattr(verdict, "run", run)
    assert not list(tmp_path.rglob("*.pickle"))
    assert run_gold(str(shop), GOLD, settings, keep=True)[1] == [("axe",)]
    assert len(list(tmp_path.rglob("*.pickle"))) == 1


def test_gold_that_failed_is_tried_again(shop, tmp_path):
    assert (
        run_gold(str(shop), "SELECT nme FROM product", JudgeSettings(LIMITS, tmp_path), keep=True)[0].outcome == "error"
    )
    assert not list(tmp_path.rglob("*.pickle"))


CHANCE = """
CREATE TABLE t (id INTEGER PRIMARY KEY, day TEXT);
INSERT INTO t VALUES (1, '2024-01-01'), (2, '2024-01-02');
CREATE VIEW drawn AS SELECT id, random() AS number FROM t;
CREATE VIEW "Säge past" AS SELECT id FROM t WHERE day < date('now');
CREATE VIEW nested AS SELECT number FROM drawn;
CREATE VIEW inside AS WITH q AS (SELECT CURRENT_TIMESTAMP AS moment) SELECT moment FROM q;
CREATE VIEW steady AS SELECT date(day) AS day FROM t;
"""
BY_CHANCE = [
    "SELECT number FROM drawn",
    "SELECT COUNT(*) FROM DRAWN",
    "SELECT 1 FROM drawn LIMIT 1",
    "SELECT d.number FROM main.drawn AS d JOIN t USING (id)",
    "SELECT number FROM nested",
    "SELECT COUNT(*) FROM nested",
    "WITH q AS (SELECT * FROM nested) SELECT COUNT(*) FROM q",
    "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM nested)",
    "SELECT id FROM t WHERE id IN (SELECT number FROM nested)",
    "SELECT id FROM t WHERE id NOT IN nested",
    "SELECT id FROM t UNION SELECT number FROM drawn",
    "SELECT COUNT(*) FROM [säge PAST]",
    'SELECT 1 FROM t LEFT JOIN "Säge past" AS p ON p.id = t.id',
    "SELECT * FROM inside",
    "SELECT COUNT(*) FROM inside",
    'SELECT "random"()',
    "SELECT [randomblob](4)",
]
STEADY = ["SELECT day FROM steady", "SELECT COUNT(*) FROM t", "SELECT 'drawn', id AS nested FROM t"]


@pytest.fixture
def chance(tmp_path) -> str:
    return str(make_database(tmp_path / "chance.sqlite", CHANCE))


@pytest.mark.parametrize("sql", BY_CHANCE)
def test_a_query_that_hangs_on_the_moment_is_flagged_and_not_kept(chance, tmp_path, sql):
    settings = JudgeSettings(LIMITS, tmp_path / "gold")
    run(chance, STEADY[0], LIMITS)
    execution, _, _ = gold_result(chance, sql, settings)
    assert execution.outcome in ("ok", "empty") and "clock_or_random" in execution.flags
    run_gold(chance, sql, settings, keep=True)
    assert not list(tmp_path.rglob("*.pickle"))


@pytest.mark.parametrize("sql", STEADY)
def test_what_does_not_hang_on_it_is_not(chance, tmp_path, sql):
    run(chance, BY_CHANCE[0], LIMITS)
    execution, _ = run_gold(chance, sql, JudgeSettings(LIMITS, tmp_path / "gold"), keep=True)
    assert execution.outcome == "ok" and "clock_or_random" not in execution.flags
    assert len(list(tmp_path.rglob("*.pickle"))) == 1


def test_gold_that_draws_is_drawn_anew_for_each_candidate(chance):
    drawn = [gold_result(chance, "SELECT number FROM nested", JudgeSettings(LIMITS))[1] for _ in range(3)]
    assert len({tuple(rows) for rows in drawn}) == 3


def test_a_query_that_fails_by_chance_is_flagged_too(chance):
    failing = "SELECT abs(-9223372036854775808 + 0 * number) FROM drawn"
    assert run(chance, failing, LIMITS)[0].flags == ("clock_or_random",)
    assert run(chance, "SELECT nothing", LIMITS)[0].flags == ()


def test_gold_that_draws_makes_nothing_fragile(chance, tmp_path, monkeypatch):
    monkeypatch.setattr(verdict, "_differs", lambda *_: True)
    for gold, fragile in (("SELECT number * 0 FROM drawn", False), ("SELECT id * 0 FROM t", True)):
        found = verdict_here(chance, "SELECT id * 0 FROM t WHERE id", gold, tmp_path)
        assert found.ex and ("fragile" in found.execution.flags) == fragile


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
