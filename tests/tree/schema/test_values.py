"""Stored values that a question speaks of: what is indexed, what is found, and that no text or file trips it."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import InputError
from tests.conftest import ROOT, make_database
from tests.strange_databases import STRANGE, make_strange
from tree.schema import value_index
from tree.schema.value_index import build_index, unread_columns
from tree.schema.values import StoredValue, matching_values, value_lines
from tree.sql.cache import cache_folder

CINEMA = """
CREATE TABLE film (id INTEGER PRIMARY KEY, title TEXT, country TEXT, rating TEXT, released TEXT, link TEXT, plot TEXT);
INSERT INTO film VALUES
    (1, 'Star Wars', 'USA', 'PG', '1977-05-25T00:00:00', 'https://example.org/star', NULL),
    (2, 'City of God', 'Brazil', 'R', '2002-05-18T00:00:00', 'www.example.org/god', NULL),
    (3, 'Star', 'Italy', 'G', NULL, NULL, NULL),
    (4, 'The Who', 'U.K.', 'M', NULL, NULL, NULL),
    (5, 'Amélie', 'France', 'R', NULL, NULL, NULL),
    (6, '千と千尋', 'Japan', 'G', NULL, NULL, NULL),
    (7, 'Meßdorf''s "End"', 'Germany', 'G', NULL, NULL, NULL),
    (8, 'Films', '4f2a9c1be77d4f2a9c1be77d', 'G', NULL, NULL, NULL),
    (9, 'two
lines', CAST(x'4272e97a696c' AS TEXT), '12345', NULL, NULL, 'Good');
UPDATE film SET plot = coalesce(plot, 'A long story of stars and wars ' || hex(zeroblob(60)));
CREATE TABLE "film genre" (film_id REFERENCES film, "the genre" TEXT);
INSERT INTO "film genre" VALUES (1, 'Action'), (1, 'Science Fiction'), (2, 'Drama'), (3, 'Genre'), (4, 'name'),
    (5, 'Actor');
CREATE TABLE actors (id INTEGER);
CREATE VIEW seen AS SELECT title AS "seen title" FROM film;
CREATE VIRTUAL TABLE search USING fts5 (words);
INSERT INTO search VALUES ('only in the search table');
"""


@pytest.fixture(scope="module")
def cinema(tmp_path_factory):
    return make_database(tmp_path_factory.mktemp("databases") / "cinema.sqlite", CINEMA)


@pytest.fixture(scope="module")
def index(cinema, tmp_path_factory):
    return build_index(cinema, tmp_path_factory.mktemp("values"))


def found(index, text):
    return [match.value for match in matching_values(index, text)]


def cells(index):
    with closing(sqlite3.connect(index)) as connection:
        connection.text_factory = bytes
        return {value.decode("utf-8", "replace") for (value,) in connection.execute("SELECT value FROM cell")}


# --- what is found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Who made the film "Star Wars"?', ["Star Wars"]),
        ("who made star wars?", ["Star Wars"]),
        ("How many Brazilian films are there?", ["Brazil"]),
        ("Italian or japanese ones?", ["Italy"]),
        ("Which dramas and actions ran?", ["Action", "Drama"]),
        ("the city of the god", ["City of God"]),
        ("a siense fiction story", []),
        ("scence fiction", ["Science Fiction"]),
        ("Is amelie there?", ["Amélie"]),
        ("rated PG in the U.K.?", ["U.K.", "PG"]),
        ("rating = 'R'", ["R"]),
        ("rated r, or R?", []),
        ("Was The Who there?", []),
        ("Was 'The Who' there?", ["The Who"]),
        ("Name the films and genres of each actor", []),
        ("those named by name", []),
        ("titled “千と千尋”", ["千と千尋"]),
        ("in Meßdorf's end", ['Meßdorf\'s "End"']),
        ("title = 'Meßdorf''s End'", ['Meßdorf\'s "End"']),
        ("two lines", []),
        ("Brézim or br zim", []),
        ("", []),
        ("???", []),
    ],
)
def test_matches(index, text, expected):
    assert found(index, text) == expected


def test_sure_matches_come_first_and_account_for_their_words(index):
    text = "dramas like Star Wars, 'Brazil'"
    assert found(index, text) == ["Brazil", "Star Wars", "Drama"]  # not "Star"
    assert matching_values(index, text)[1] == StoredValue("film", "title", "Star Wars")


def test_quoted_part_of_a_longer_match_stays(index):
    assert found(index, "'Star' is not 'Star Wars'") == ["Star Wars", "Star"]


def test_the_column_that_is_named_comes_first(tmp_path):
    script = "CREATE TABLE a (birth TEXT, home_town TEXT); INSERT INTO a VALUES ('Rome', 'Rome')"
    index = build_index(make_database(tmp_path / "a.sqlite", script), tmp_path)
    assert [match.column for match in matching_values(index, "home_town = 'Rome'")] == ["home_town", "birth"]


def test_only_so_many(tmp_path):
    columns = [f"c{number}" for number in range(10)]
    script = f"CREATE TABLE a ({', '.join(f'{column} TEXT' for column in columns)});"
    for city in ("Rome", "Oslo", "Bern"):
        script += f"INSERT INTO a VALUES ({', '.join([repr(city)] * 10)});"
    matches = matching_values(build_index(make_database(tmp_path / "a.sqlite", script), tmp_path), "Rome, Oslo, Bern")
    assert [match.column for match in matches] == ["c0", "c0", "c1", "c1", "c2", "c2", "c3", "c3"]


pieces = st.sampled_from(
    ["'", '"', "star", "Wars", "Brazilian", "AND", "NOT", "NEAR(", "*", "^", "“", "千", "\0", "-", ":"]
)
anything = (
    st.text(st.characters()) | st.lists(pieces).map(" ".join) | st.lists(pieces | st.text(st.characters())).map("".join)
)


@given(anything)
def test_no_text_trips_it(index, cinema, text):
    matches = matching_values(index, text)
    assert matches == matching_values(index, text)
    assert len(matches) <= 8
    with closing(sqlite3.connect(cinema)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        for line in value_lines(matches):
            assert len(line.splitlines()) == 1
            table, column = line.split(" = ", 1)[0].rsplit(".", 1)
            assert connection.execute(f"SELECT count(*) FROM {table} WHERE {line}").fetchone()[0] > 0, column


def test_long_text(index):
    assert found(index, " ".join(f"word{number} 'in {number}' Lian{number}ian" for number in range(5_000))) == []


def test_value_lines():
    matches = [StoredValue("film", "country", "Brazil"), StoredValue("order", "the genre", "it's")]
    assert value_lines(matches) == ["film.country = 'Brazil'", "\"order\".\"the genre\" = 'it''s'"]


# --- the index ------------------------------------------------------------------------------------------------------


def test_what_is_indexed(index):
    indexed = cells(index)
    assert {"Star Wars", "Brazil", "千と千尋", "Science Fiction", "R"} <= indexed
    # numbers, time stamps, links, hashes; short cells of free text; virtual tables
    assert not indexed & {"12345", "1977-05-25T00:00:00", "https://example.org/star", "www.example.org/god"}
    assert not indexed & {"4f2a9c1be77d4f2a9c1be77d", "Good", "only in the search table"}
    with closing(sqlite3.connect(index)) as connection:
        tables = {table for (table,) in connection.execute("SELECT table_name FROM place")}
    assert tables == {"film", "film genre"}


def test_no_more_than_so_many_cells_of_a_column(tmp_path, monkeypatch):
    monkeypatch.setattr(value_index, "CELLS", value_index.CELLS.replace("LIMIT 100000", "LIMIT 2"))
    index = build_index(make_database(tmp_path / "a.sqlite", CINEMA), tmp_path)
    with closing(sqlite3.connect(index)) as connection:
        assert connection.execute("SELECT max(n) FROM (SELECT count(*) n FROM cell GROUP BY place)").fetchone() == (2,)


ODD_NAMES = """
CREATE TABLE "a ""b" ("{x}" TEXT PRIMARY KEY, "select" TEXT, current_date TEXT) WITHOUT ROWID;
INSERT INTO "a ""b" VALUES ('x', 'Brazil', 'y');
"""
UTF_16 = "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('Brazil')"


@pytest.mark.parametrize(
    ("script", "expected"), [("CREATE TABLE t (a TEXT)", []), ("", []), (UTF_16, ["Brazil"]), (ODD_NAMES, ["Brazil"])]
)
def test_odd_databases(tmp_path, script, expected):
    path = make_database(tmp_path / "it's 50% of #1?.sqlite", script)
    assert found(build_index(path, tmp_path / "values #2?"), "Brazil") == expected


@pytest.mark.parametrize("name", STRANGE)
def test_what_cannot_be_read_costs_only_itself(tmp_path, name):
    strange = STRANGE[name]
    index = build_index(make_strange(tmp_path / "s.sqlite", strange), tmp_path)
    assert found(index, "Bob") == ["Bob"]
    unread = unread_columns(index)
    assert all({(table, ""), (table, column)} & set(strange.unread) for table, column in unread)


def test_cells_are_told_apart_byte_by_byte(tmp_path):
    index = build_index(make_strange(tmp_path / "s.sqlite", STRANGE["collation"]), tmp_path)
    assert cells(index) == {"Ann", "Bob", "Cleo", "Dan", "Eve", "eve", "x", "y", "z"}
    index = build_index(make_strange(tmp_path / "c.sqlite", STRANGE["computed"]), tmp_path)
    assert {"Dan", "Dan!", "DAN"} <= cells(index)


def test_the_database_is_only_read(tmp_path):
    path = make_database(tmp_path / "data" / "a.sqlite", CINEMA)
    before = path.read_bytes()
    build_index(path, tmp_path / "values")
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["a.sqlite"]


def test_an_index_is_built_once(cinema, tmp_path, monkeypatch):
    index = build_index(cinema, tmp_path / "new")
    before = index.stat().st_mtime_ns, index.stat().st_ino
    assert build_index(cinema, tmp_path / "new") == index
    assert (index.stat().st_mtime_ns, index.stat().st_ino) == before
    monkeypatch.setattr(value_index, "FORMAT", value_index.FORMAT + 1)
    assert build_index(cinema, tmp_path / "new") == index
    assert index.stat().st_ino != before[1]


def test_a_changed_database_has_another_index(tmp_path):
    path = make_database(tmp_path / "a.sqlite", CINEMA)
    first = build_index(path, tmp_path)
    make_database(path, "INSERT INTO film (title) VALUES ('Alien')")
    second = build_index(path, tmp_path)
    assert (found(first, "Alien"), found(second, "Alien")) == ([], ["Alien"])


@pytest.mark.parametrize("torn", [b"", b"SQLite format 3\0" + b"x" * 5_000, b"nonsense"])
def test_a_torn_index_does_not_count(cinema, tmp_path, torn):
    index = build_index(cinema, tmp_path)
    index.write_bytes(torn)
    assert found(build_index(cinema, tmp_path), "Brazil") == ["Brazil"]


def test_nothing_is_left_of_a_build_that_fails(cinema, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        build_index(cinema, tmp_path / "values")
    assert list((tmp_path / "values").iterdir()) == []


def test_a_killed_build_is_no_index(cinema, tmp_path):
    (tmp_path / f".{build_index(cinema, tmp_path / 'other').name}.abc.tmp").write_bytes(b"half")
    assert found(build_index(cinema, tmp_path), "Brazil") == ["Brazil"]


def test_processes_build_at_once(cinema, tmp_path):
    program = "import pathlib, sys; from tree.schema.value_index import build_index as build"
    program += "; build(*map(pathlib.Path, sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(cinema), str(tmp_path / "values")]
    builds = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [build.wait() for build in builds] == [0] * 4
    assert len(list((tmp_path / "values").iterdir())) == 1
    assert found(build_index(cinema, tmp_path / "values"), "Brazil") == ["Brazil"]


def test_what_cannot_be_indexed_is_named(cinema, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cinema\.sqlite: .*RESQLVER_CACHE"):
        build_index(cinema, tmp_path / "file" / "values")
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(cinema.read_bytes()[:100] + os.urandom(10_000))
    with pytest.raises(InputError, match=r"broken\.sqlite: "):
        build_index(broken, tmp_path / "values")
    monkeypatch.setattr(value_index, "TABLES", "CREATE VIRTUAL TABLE cell USING fts0 (value)")
    with pytest.raises(InputError, match="no full-text search .*; use a Python"):
        build_index(cinema, tmp_path / "values")
    assert list((tmp_path / "values").iterdir()) == []


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RESQLVER_CACHE", str(tmp_path))
    assert cache_folder("values") == tmp_path / "values"
