"""Workers that die, the verdict on a query, and which database files are refused."""

import asyncio
import contextlib
import multiprocessing
import shlex
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.files import InputError
from tests.builders import verdict_here as judge
from tests.shop import SHOP, make_database
from tests.strange_databases import REFUSED, make_strange
from tree.sql import worker
from tree.sql.database_file import connect
from tree.sql.guarded import Limits
from tree.sql.verdict import JudgeSettings, same_rows
from tree.sql_utils import Executor, check_database

ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT COUNT(*) FROM c"


def test_a_result_over_the_row_limit_is_too_large(shop):
    rows = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000002) SELECT n FROM c"
    with Executor(workers=1, timeout=30) as patient:
        assert asyncio.run(patient.execute(shop, rows)).outcome == "too_large"


def test_a_dead_worker_costs_its_own_task_only(shop):
    async def scenario() -> tuple[str, str]:
        with Executor(workers=1, timeout=20) as executor:
            await executor.execute(shop, "SELECT 1")
            doomed = asyncio.create_task(executor.execute(shop, ENDLESS))
            while not doomed.done():  # the task is tried once more, on a worker that must start first
                await asyncio.sleep(1)
                for process in multiprocessing.active_children():
                    process.kill()
            return (await doomed).outcome, (await executor.execute(shop, "SELECT 1")).outcome

    assert asyncio.run(scenario()) == ("crashed", "ok")


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
    free, ordered = "SELECT a FROM t", "SELECT a FROM t ORDER BY a"
    assert same_rows(one, other, ordered) <= same_rows(one, other, free) <= (set(one) == set(other))
    assert same_rows(one, other, free) == same_rows(other, one, free)
    assert same_rows(one, list(one), ordered)


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
    path, sql, settings = str(shop), "SELECT 1", JudgeSettings(Limits(5.0, 10**9), perturbed=shop.parent)
    tasks = (
        lambda: worker.execute_gold(path, sql, settings),
        lambda: worker.judge_all(path, (sql,), sql, settings),
        lambda: worker.find_fragile(path, [], sql, settings),
    )
    for task in tasks:
        done = []
        monkeypatch.setattr(worker, "content_digest", lambda _, done=done: done.append("digest"))
        monkeypatch.setattr(signal, "setitimer", lambda *_, done=done: done.append("alarm"))
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
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(InputError, match=r"empty\.sqlite: an empty file, no database; "):
        check_database(tmp_path / "empty.sqlite")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    (tmp_path / "pointer.sqlite").write_bytes(pointer)
    with pytest.raises(InputError, match=r"pointer\.sqlite: a Git LFS pointer.*`git lfs pull`"):
        check_database(tmp_path / "pointer.sqlite")
    strange = make_strange(tmp_path / "strange.sqlite", REFUSED["newer syntax"])
    with pytest.raises(InputError, match=r"strange\.sqlite: malformed database schema \(v\).*newer SQLite"):
        check_database(strange)


# --- journals -------------------------------------------------------------------------------------------------------

# a program that is killed in its work: with what it wrote in the log, or with a changed page in the file
KILLED = {
    "wal": "PRAGMA journal_mode = WAL; CREATE TABLE added (a); INSERT INTO added VALUES (1);",
    "journal": "PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN; UPDATE product SET name = hex(zeroblob(9000));"
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50)"
    " INSERT INTO product (name) SELECT hex(zeroblob(5000)) FROM n;",
}


def killed(database: Path, how: str) -> Path:
    """The database after a program was killed that wrote to it."""
    program = "import os, sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2]); os._exit(0)"
    subprocess.run([sys.executable, "-c", program, database, KILLED[how]], check=True)
    assert Path(f"{database}-{how}").stat().st_size > 512
    return database


def follow(advice: str) -> None:
    """Do what the message says, with this Python's SQLite in the place of the program `sqlite3`."""
    program, database, sql = shlex.split(advice.split("run: ")[1])
    assert program == "sqlite3"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(sql).fetchall()


@pytest.mark.parametrize("how", KILLED)
@pytest.mark.parametrize("place", ["itself", "link", "folder", "link to a link"])
def test_unfinished_changes_are_seen_and_the_advice_helps(tmp_path, how, place):
    real = killed(make_database(tmp_path / "it's real" / "shop.sqlite"), how)
    link, folder = tmp_path / "link.sqlite", tmp_path / "folder"
    link.symlink_to(real)
    folder.symlink_to(real.parent)
    (tmp_path / "second.sqlite").symlink_to(link)
    places = {"itself": real, "link": link, "folder": folder / real.name, "link to a link": tmp_path / "second.sqlite"}
    with pytest.raises(InputError, match=rf"unfinished changes in .*shop\.sqlite-{how}; run: sqlite3 ") as refused:
        check_database(places[place])
    follow(str(refused.value))
    check_database(places[place])
    with contextlib.closing(connect(places[place])) as connection:
        assert connection.execute("SELECT count(*) FROM product").fetchall() == [(3,)]
        added = connection.execute("SELECT name FROM sqlite_master WHERE name = 'added'").fetchall()
        assert added == ([("added",)] if how == "wal" else [])


@pytest.mark.parametrize("mode", ["PERSIST", "TRUNCATE", "DELETE", "MEMORY"])
def test_a_journal_without_changes_is_no_reason_to_refuse(shop, mode):
    with contextlib.closing(sqlite3.connect(shop)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("INSERT INTO product (id) VALUES (9)")
        connection.commit()
    assert Path(f"{shop}-journal").exists() == (mode in ("PERSIST", "TRUNCATE"))
    check_database(shop)


@pytest.mark.parametrize("kept", [0, 20, 32])
def test_a_log_without_a_page_is_no_reason_to_refuse(shop, kept):
    log = Path(f"{killed(shop, 'wal')}-wal")
    log.write_bytes(log.read_bytes()[:kept])
    check_database(shop)


def test_a_journal_beside_a_link_is_not_of_the_database(shop, tmp_path):
    link = tmp_path / "link.sqlite"
    link.symlink_to(shop)
    Path(f"{link}-journal").write_bytes(b"of another file that was here")
    check_database(link)


# --- files that are cut off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [512, 4096, 65536])
@pytest.mark.parametrize("version", ["3.7", "older"])
def test_a_file_cut_off_anywhere_is_an_error(tmp_path, page, version):
    path = make_database(tmp_path / "shop.sqlite", f"PRAGMA page_size = {page}; {SHOP}")
    content = bytearray(path.read_bytes())
    if version == "older":  # as one writes that does not keep the number of pages
        content[24:28] = b"\0\0\7\7"
    path.write_bytes(content)
    check_database(path)
    whole_page = page if version == "3.7" else 17  # of an older one, a missing page cannot be seen in the length
    for size in (len(content) - 1, len(content) - page // 2, len(content) - page * 3 // 2, 100, 17, whole_page):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"shop\.sqlite: cut off, \d+ of \d+ bytes; download"):
            check_database(path)
    path.write_bytes(content + b"\0" * 7)
    if version == "3.7":  # SQLite does not look at it
        check_database(path)


@pytest.fixture(scope="module")
def odd_file(tmp_path_factory):
    return tmp_path_factory.mktemp("odd") / "odd.sqlite"


@given(st.binary(max_size=200))
@example(b"\0" * 16)
@example(b"\x01\x00" + b"\0" * 90)
def test_no_header_trips_the_check(odd_file, header):
    odd_file.write_bytes(b"SQLite format 3\0" + header)
    with pytest.raises(InputError, match=r"odd\.sqlite: .+; download"):
        check_database(odd_file)
