"""Databases of which SQLite cannot read everything, as other programs, other versions and accidents leave them."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from tests.shop import make_database

BASE = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'Ann'), (2, 'Bob'), (3, 'Cleo');"


@dataclass(frozen=True)
class Strange:
    """A database with a table t that is well. `rows` of sqlite_master and `replaced` bytes are what this SQLite would
    not write, the pages of the table `damaged` are overwritten; `unread` are the (table, column) that cannot be read,
    `seen` what else the schema shows.
    """

    script: str = ""
    rows: tuple[tuple[str, str, str], ...] = ()
    replaced: tuple[bytes, bytes] = (b"", b"")
    damaged: str | None = None
    unread: tuple[tuple[str, str], ...] = ()
    seen: tuple[tuple[str, tuple[str, ...]], ...] = ()


V = (("v", ""),)
TABLE_K = (
    "CREATE TABLE k (a TEXT COLLATE nocase, b TEXT); INSERT INTO k VALUES ('Dan', 'x'), ('Eve', 'y'), ('eve', 'z');"
)
GERMAN = (b"nocase", b"german")
LATIN = (b"nameXX", b"name\xe9\xe8")
K = (("k", ("a", "b")),)

STRANGE = {
    "dropped table": Strange("CREATE TABLE g (x); CREATE VIEW v AS SELECT x FROM g; DROP TABLE g", unread=V),
    "missing column": Strange("CREATE VIEW v AS SELECT nosuch FROM t", unread=V),
    "own function": Strange("CREATE VIEW v AS SELECT my_function(name) AS n FROM t", unread=V),
    "regexp": Strange("CREATE VIEW v AS SELECT name FROM t WHERE name REGEXP 'A.*'", unread=V),
    "view over a view": Strange(
        "CREATE VIEW v AS SELECT f(1) AS n; CREATE VIEW w AS SELECT n FROM v", unread=(*V, ("w", ""))
    ),
    "view with a collation": Strange("CREATE VIEW v AS SELECT name FROM t ORDER BY name COLLATE german", unread=V),
    "circular": Strange(
        rows=(("view", "v", "CREATE VIEW v AS SELECT * FROM w"), ("view", "w", "CREATE VIEW w AS SELECT * FROM v")),
        unread=(*V, ("w", "")),
    ),
    "sqlite-vec": Strange(
        "CREATE TABLE v_chunks (chunk_id); CREATE TABLE v_vector_chunks00 (rowid); CREATE TABLE v_mine (a)",
        rows=(("table", "v", "CREATE VIRTUAL TABLE v USING vec0(x float[2])"),),
        unread=V,
        seen=(("v_mine", ("a",)),),
    ),
    "spatialite": Strange(rows=(("table", "v", "CREATE VIRTUAL TABLE v USING VirtualSpatialIndex()"),), unread=V),
    "tokenizer": Strange(rows=(("table", "v", "CREATE VIRTUAL TABLE v USING fts4(a, tokenize=mozporter)"),), unread=V),
    "lost inner tables": Strange(rows=(("table", "v", "CREATE VIRTUAL TABLE v USING fts5(a)"),), unread=V),
    "lost root page": Strange(rows=(("table", "v", "CREATE TABLE v (a, b)"),), unread=V),
    "damaged pages": Strange(
        "CREATE TABLE v (a TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000)"
        " INSERT INTO v SELECT 'a rather long text ' || i FROM n",
        damaged="v",
        unread=V,
    ),
    "collation": Strange(TABLE_K, replaced=GERMAN, seen=K),
    "collation of an index": Strange(
        TABLE_K + "CREATE INDEX i ON k (a); CREATE INDEX j ON k (a, b)", replaced=GERMAN, seen=K
    ),
    "collation of an expression": Strange(
        "CREATE TABLE k (a TEXT, b TEXT); INSERT INTO k VALUES ('Dan', 'x'); CREATE INDEX i ON k (b, a COLLATE nocase)",
        replaced=GERMAN,
        seen=K,
    ),
    "collation of a key": Strange(
        "CREATE TABLE v (a TEXT COLLATE nocase PRIMARY KEY) WITHOUT ROWID; INSERT INTO v VALUES ('Dan')",
        replaced=GERMAN,
        unread=V,
    ),
    "column name": Strange(
        "CREATE TABLE k (a TEXT, nameXX TEXT, b TEXT); INSERT INTO k VALUES ('Dan', 'x', 'y')",
        replaced=LATIN,
        unread=(("k", "name\udce9\udce8"),),
        seen=K,
    ),
    "only column name": Strange("CREATE TABLE v (nameXX TEXT)", replaced=LATIN, unread=V),
    "table name": Strange(
        "CREATE TABLE nameXX (a TEXT); INSERT INTO nameXX VALUES ('Dan')",
        replaced=LATIN,
        unread=(("name\udce9\udce8", ""),),
    ),
    "view name": Strange(
        "CREATE VIEW nameXX AS SELECT name FROM t", replaced=LATIN, unread=(("name\udce9\udce8", ""),)
    ),
    "name in a message": Strange("CREATE VIEW v AS SELECT nameXX FROM t", replaced=LATIN, unread=V),
    "name of a key": Strange(
        "CREATE TABLE k (a TEXT, nameXX INTEGER REFERENCES t, b TEXT, PRIMARY KEY (a, nameXX))",
        replaced=LATIN,
        unread=(("k", "name\udce9\udce8"),),
        seen=K,
    ),
    "name of an index": Strange(
        "CREATE TABLE k (a TEXT, b TEXT); CREATE UNIQUE INDEX nameXX ON k (a)", replaced=LATIN, seen=K
    ),
    "computed by an own function": Strange(
        "CREATE TABLE k (a TEXT, b TEXT, c AS (lower(a))); INSERT INTO k (a, b) VALUES ('Dan', 'x')",
        replaced=(b"lower(", b"lowex("),
        unread=(("k", "c"),),
        seen=K,
    ),
    "computed from what is not there": Strange(
        "CREATE TABLE k (a TEXT, b TEXT, c AS (json_extract(a, '$'))); INSERT INTO k (a, b) VALUES ('[1234]', 'x')",
        replaced=(b"[1234]", b"{1234]"),
        unread=(("k", "c"),),
        seen=K,
    ),
    "computed": Strange(
        "CREATE TABLE k (a TEXT, b TEXT AS (a || '!'), c TEXT AS (upper(a)) STORED); INSERT INTO k (a) VALUES ('Dan')",
        seen=(("k", ("a", "b", "c")),),
    ),
    "check by an own function": Strange(
        "CREATE TABLE k (a TEXT CHECK (lower(a) <> ''), b TEXT DEFAULT (lower('X'))); INSERT INTO k (a) VALUES ('Dan')",
        replaced=(b"lower(", b"lowex("),
        seen=K,
    ),
    "index by an own function": Strange(
        "CREATE TABLE k (a TEXT, b TEXT); CREATE INDEX i ON k (lower(a)); INSERT INTO k VALUES ('Dan', 'x')",
        replaced=(b"lower(", b"lowex("),
        seen=K,
    ),
    "inner tables": Strange(
        "CREATE VIRTUAL TABLE f3 USING fts3 (a); CREATE VIRTUAL TABLE f4 USING fts4 (a, b);"
        "CREATE VIRTUAL TABLE f5 USING fts5 (a); CREATE VIRTUAL TABLE r USING rtree (i, low, high);"
        "INSERT INTO f5 VALUES ('Dan'); CREATE TABLE f5_mine (x)",
        seen=(
            ("f3", ("a",)),
            ("f4", ("a", "b")),
            ("f5", ("a",)),
            ("r", ("i", "low", "high")),
            ("f5_mine", ("x",)),
        ),
    ),
    "odd names": Strange(
        'CREATE TABLE "a\nb""\'c" ("x\ny""" TEXT, "" TEXT); CREATE TABLE "" (a);'
        'CREATE VIEW "select" AS SELECT 1 AS "1"',
        seen=(("a\nb\"'c", ('x\ny"', "")), ("", ("a",)), ("select", ("1",))),
    ),
}
# files that SQLite refuses as a whole
REFUSED = {
    "newer syntax": Strange(rows=(("view", "v", "CREATE VIEW v AS SELECT group_concat(name ORDER BY id) FROM t"),)),
    "no SQL": Strange("CREATE TABLE v (a)", replaced=(b"CREATE TABLE v", b"CREATE TABLX v")),
    "a broken trigger": Strange(
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT abs(1); END", replaced=(b"abs(1)", b"$&%(1)")
    ),
    "an orphan": Strange(rows=(("table", "v", None),)),
}


def make_strange(path: Path, strange: Strange) -> Path:
    """The database, with its file at `path`."""
    make_database(path, BASE + strange.script)
    connection = sqlite3.connect(path)
    query = "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = ?"
    places = connection.execute(query, (strange.damaged,)).fetchall()
    connection.execute("PRAGMA writable_schema = ON")
    for kind, name, sql in strange.rows:
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, 0, ?)", (kind, name, name, sql))
    connection.commit()
    connection.close()
    content = bytearray(path.read_bytes().replace(*strange.replaced) if strange.replaced[0] else path.read_bytes())
    for page, size in places:
        content[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(content)
    return path
