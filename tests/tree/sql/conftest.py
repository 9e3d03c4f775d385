"""Databases that several tests of queries run on: one with hostile and odd things, one with its perturbed instances."""

from pathlib import Path

import pytest

from tests.builders import make_instances
from tests.conftest import make_database
from tests.hostile_queries import WAREHOUSE
from tree.sql.perturbed import INSTANCES, instance_files

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


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    return make_database(tmp_path / "shop" / "shop.sqlite", WAREHOUSE)


@pytest.fixture(scope="session")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("cinema") / "cinema.sqlite", CINEMA)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, cinema: Path) -> Path:
    """A folder with the instances of `cinema`."""
    folder = tmp_path_factory.mktemp("instances")
    make_instances(cinema, folder)
    return folder


@pytest.fixture(scope="session")
def instances(cinema: Path, folder: Path) -> dict[str, Path]:
    return dict(zip(INSTANCES, instance_files(folder, str(cinema)), strict=True))
