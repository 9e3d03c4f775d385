"""Schema text: SQLite itself must accept it, and it must show what a query needs."""

import sqlite3

from tests.conftest import make_database
from tree.sandbox import connect
from tree.schema import schema_text

HARD = """
CREATE TABLE "group" ("School Name" TEXT, "Charter (Y/N)" INTEGER, city TEXT, note BLOB,
    PRIMARY KEY ("School Name", city));
CREATE TABLE "we""ird" (id INTEGER PRIMARY KEY, up INTEGER REFERENCES "we""ird", school TEXT, town TEXT,
    FOREIGN KEY (school, town) REFERENCES "group" ("School Name", city));
INSERT INTO "group" VALUES ('Höchst', 1, 'Zürich', x'00ff'), ('東京', NULL, '', NULL),
    ('A' || hex(zeroblob(100)), 0, 'B', NULL);
CREATE VIEW names AS SELECT "School Name" AS n FROM "group";
"""


def test_schema_is_sql_that_sqlite_accepts(tmp_path):
    path = make_database(tmp_path / "hard.sqlite", HARD)
    text = schema_text(connect(path))
    rebuilt = sqlite3.connect(":memory:")
    rebuilt.executescript(text)
    original = sqlite3.connect(path)
    for table in ("group", 'we"ird', "names"):
        literal = table.replace("'", "''")
        shape = f"SELECT name, type FROM pragma_table_info('{literal}') ORDER BY cid"
        assert rebuilt.execute(shape).fetchall() == original.execute(shape).fetchall()
        keys = f"""SELECT "table", "from", "to" FROM pragma_foreign_key_list('{literal}') ORDER BY id, seq"""
        assert rebuilt.execute(keys).fetchall() == original.execute(keys).fetchall()


def test_schema_shows_keys_and_short_values(tmp_path):
    text = schema_text(connect(make_database(tmp_path / "hard.sqlite", HARD)))
    assert 'PRIMARY KEY ("School Name", city)' in text
    assert "'Höchst', '東京'" in text
    assert "0000" not in text  # long values and BLOBs stay out
    assert '"Charter (Y/N)" INTEGER, -- 1, 0' in text


def test_schema_is_the_same_every_time(shop):
    assert schema_text(connect(shop)) == schema_text(connect(shop))
