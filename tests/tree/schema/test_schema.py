"""Schema text: SQLite itself must accept it, it must show what a query needs, and shorten in a fixed order."""

import sqlite3
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_database
from tests.strange_databases import REFUSED, STRANGE, make_strange
from tree.schema.descriptions import Description
from tree.schema.read import Column, ForeignKey, Table, read_schema
from tree.schema.write import FORMATS, SHORTENINGS, Shortening, likely_tables, schema_text, shorten
from tree.sql.database_file import connect
from tree.sql.tokens import KEYWORDS, quoted

HARD = """
CREATE TABLE "group" ("School Name" TEXT, "Charter (Y/N)" INTEGER, city TEXT, note BLOB,
    PRIMARY KEY ("School Name", city));
CREATE TABLE "we""ird" (id INTEGER PRIMARY KEY, up INTEGER REFERENCES "we""ird", school TEXT, town TEXT,
    FOREIGN KEY (school, town) REFERENCES "group" ("School Name", city));
INSERT INTO "group" VALUES ('Höchst', 1, 'Zürich', x'00ff'), ('東京', NULL, '', NULL),
    ('A' || hex(zeroblob(100)), 0, 'B', NULL);
CREATE VIEW names AS SELECT "School Name" AS n FROM "group";
"""
SAID = {
    ("group", "Charter (Y/N)"): Description("whether a charter school", "0: no, 1: yes"),
    ("group", "city"): Description("the town", "see the school's web page"),
}


def hard_schema(tmp_path):
    return read_schema(connect(make_database(tmp_path / "hard.sqlite", HARD)), SAID)


@pytest.mark.parametrize("steps", range(len(SHORTENINGS) + 1))
def test_ddl_is_sql_that_sqlite_accepts(tmp_path, steps):
    text = schema_text(hard_schema(tmp_path), "ddl", Shortening(steps))
    rebuilt = sqlite3.connect(":memory:")
    rebuilt.executescript(text)
    original = sqlite3.connect(tmp_path / "hard.sqlite")
    for table in ("group", 'we"ird', "names"):
        literal = table.replace("'", "''")
        shape = f"SELECT name, type FROM pragma_table_info('{literal}') ORDER BY cid"
        assert rebuilt.execute(shape).fetchall() == original.execute(shape).fetchall()
        keys = f"""SELECT "table", "from", "to" FROM pragma_foreign_key_list('{literal}') ORDER BY id, seq"""
        assert rebuilt.execute(keys).fetchall() == original.execute(keys).fetchall()


@pytest.mark.parametrize("layout", FORMATS)
def test_schema_shows_keys_descriptions_and_short_values(tmp_path, layout):
    text = schema_text(hard_schema(tmp_path), layout)
    assert "'Höchst', '東京'" in text
    assert "0000" not in text  # long values stay out where there are short ones, BLOBs always
    assert "whether a charter school" in text and "0: no, 1: yes" in text
    assert "the town" in text and "web page" not in text  # explains no stored value
    assert '"School Name"' in text and '"we""ird"' in text


def test_ddl_comments(tmp_path):
    text = schema_text(hard_schema(tmp_path), "ddl")
    assert 'PRIMARY KEY ("School Name", city)' in text
    assert '"Charter (Y/N)" INTEGER, -- whether a charter school; 0: no, 1: yes; e.g. 1, 0' in text


def test_mschema_layout(tmp_path):
    lines = schema_text(hard_schema(tmp_path), "mschema").splitlines()
    assert lines[:3] == ["【Schema】", '# Table: "group"', "["]
    assert '("Charter (Y/N)":INTEGER, whether a charter school, 0: no, 1: yes, Examples: [1, 0]),' in lines
    assert "(id:INTEGER, Primary Key)," in lines
    assert lines[lines.index("【Foreign keys】") + 1 :] == [
        '"we""ird".up="we""ird".id',
        '"we""ird".school="group"."School Name"',
        '"we""ird".town="group".city',
    ]


def test_frequent_values_first_and_long_ones_cut(tmp_path):
    script = f"""
    CREATE TABLE t (a TEXT, b TEXT, c TEXT, d);
    INSERT INTO t VALUES ('rare', '{"x" * 100}', 'it''s
two', x'41'), ('often', '{"y" * 100}', 'it''s
two', x'42'), ('often', '', NULL, x'43');
    """
    (table,) = read_schema(connect(make_database(tmp_path / "t.sqlite", script)))
    examples = {column.name: column.examples for column in table.columns}
    assert examples == {
        "a": ("'often'", "'rare'"),
        "b": (f"'{'x' * 40}…'",),
        "c": ("'it''s\\ntwo'",),
        "d": (),
    }


@pytest.mark.parametrize("layout", FORMATS)
def test_schema_is_the_same_every_time(shop, layout):
    one, other = (schema_text(read_schema(connect(shop)), layout) for _ in range(2))
    assert one == other


def test_views_are_not_computed(tmp_path):
    script = """CREATE VIEW endless AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)
        SELECT COUNT(*) AS n FROM c;"""
    (view,) = read_schema(connect(make_database(tmp_path / "view.sqlite", script)))
    assert view.name == "endless" and view.columns[0].examples == ()


NAMES = (
    "rowid",
    "oid",
    "_rowid_",
    "a$b",
    "1a",
    "a b",
    "É",
    "a.b",
    "",
    'a"b',
    "a'b",
    "[a]",
    "x",
    "now",
    "date",
    "random",
)


@pytest.mark.parametrize("name", sorted({*KEYWORDS, *map(str.lower, KEYWORDS), "true", "False", *NAMES}))
def test_a_name_as_shown_is_read_as_the_name(name):
    shown, stored = quoted(name), name.replace('"', '""')
    connection = sqlite3.connect(":memory:")
    connection.execute(f'CREATE TABLE {shown} ({shown} TEXT, "other {stored}" TEXT)')
    connection.execute(f"INSERT INTO {shown} VALUES ('stored', '')")
    queries = (
        *(f"SELECT {shown} FROM {shown}", f"SELECT {shown}.{shown} FROM {shown}", f'SELECT {shown} FROM "{stored}"'),
        *(f"SELECT max({shown}) AS {shown} FROM {shown} WHERE {shown} = 'stored' GROUP BY {shown} ORDER BY {shown}",),
        f"SELECT {shown}.{shown} FROM (SELECT 1) q JOIN {shown} AS {shown} ON {shown}.{shown} IS NOT NULL",
    )
    assert [connection.execute(query).fetchall() for query in queries] == [[("stored",)]] * len(queries)
    assert shown == name or shown == f'"{stored}"'
    assert (shown == name) == (name in ("rowid", "oid", "_rowid_", "x", "now", "date", "random"))


# --- what cannot be read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRANGE)
def test_what_cannot_be_read_is_left_out_with_the_reason(tmp_path, name):
    strange, problems = STRANGE[name], {}
    schema = read_schema(connect(make_strange(tmp_path / "s.sqlite", strange)), problems=problems)
    shown = [(table.name, tuple(column.name for column in table.columns)) for table in schema]
    assert shown == [("t", ("id", "name")), *strange.seen]
    assert set(problems) == set(strange.unread) and all(problems.values())
    assert schema[0].columns[1].examples == ("'Ann'", "'Bob'", "'Cleo'")


@pytest.mark.parametrize("name", [name for name in STRANGE if STRANGE[name].seen])
def test_what_is_shown_can_be_read(tmp_path, name):
    connection = connect(make_strange(tmp_path / "s.sqlite", STRANGE[name]))
    schema = read_schema(connection)
    for table in schema:
        for column in table.columns:
            query = f"SELECT one.{quoted(column.name)} FROM {quoted(table.name)} AS one"
            connection.execute(query).fetchall()
    rebuilt = sqlite3.connect(":memory:")
    rebuilt.executescript(schema_text(schema, "ddl"))
    for layout in FORMATS:
        schema_text(schema, layout).encode()


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_sqlite_refuses_is_an_error(tmp_path, name):
    with pytest.raises(sqlite3.DatabaseError, match="malformed database schema"):
        read_schema(connect(make_strange(tmp_path / "s.sqlite", REFUSED[name])))


def test_computed_columns_have_examples(tmp_path):
    _, table = read_schema(connect(make_strange(tmp_path / "s.sqlite", STRANGE["computed"])))
    assert [column.examples for column in table.columns] == [("'Dan'",), ("'Dan!'",), ("'DAN'",)]
    assert [column.kind for column in table.columns] == ["TEXT"] * 3


def test_a_key_with_a_column_that_cannot_be_named_is_not_shown(tmp_path):
    _, table = read_schema(connect(make_strange(tmp_path / "s.sqlite", STRANGE["name of a key"])))
    assert (table.primary_key, table.foreign_keys) == ((), ())


# --- shortening -----------------------------------------------------------------------------------------------------


def wide_schema(tables: int, columns: int) -> tuple[Table, ...]:
    return tuple(
        Table(
            f"table_{number}",
            tuple(
                Column(f"column_{number}_{place}", "TEXT", ("'a'", "'b'"), f"meaning {place}", "a: one, b: two")
                for place in range(columns)
            ),
            (f"column_{number}_0",),
            (ForeignKey((f"column_{number}_0",), f"table_{(number + 1) % tables}", ()),),
        )
        for number in range(tables)
    )


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 6_000), st.sampled_from(FORMATS))
def test_shortened_in_a_fixed_order_as_little_as_needed(tables, columns, budget, layout):
    schema = wide_schema(tables, columns)
    order = [table.name for table in schema][::-1]

    def length(shortening: Shortening) -> int:
        return len(schema_text(schema, layout, shortening))

    found = shorten(schema, lambda: order, lambda shortening: length(shortening) <= budget)
    if found is None:
        assert length(Shortening(len(SHORTENINGS), tuple(order[1:]))) > budget
        return
    assert length(found) <= budget
    if found.tables:  # the unlikely ones, as few as needed, after everything else
        kept = tables - len(found.tables)
        assert kept >= 1 and found.tables == tuple(order[kept:]) and found.steps == len(SHORTENINGS)
        assert length(Shortening(found.steps, found.tables[1:])) > budget
    elif found.steps:
        assert length(Shortening(found.steps - 1)) > budget


@pytest.mark.parametrize("layout", FORMATS)
def test_nothing_is_cut_in_the_middle(layout):
    """What is left out might as well never have been there."""
    schema = wide_schema(20, 4)
    shortening = Shortening(3, ("table_3", "TABLE_7"))
    rest = []
    for number, table in enumerate(schema):
        columns = tuple(replace(column, examples=(), meaning="", codes="") for column in table.columns)
        keys = () if number in (2, 6) else table.foreign_keys
        if number not in (3, 7):
            rest.append(replace(table, columns=columns, foreign_keys=keys))
    assert schema_text(schema, layout, shortening) == schema_text(rest, layout)
    assert shortening.names() == [*SHORTENINGS, "table table_3", "table TABLE_7"]


def test_tables_that_the_question_names_come_first():
    names = {"stadium": ["name", "capacity"], "singer": ["name", "age"], "concert": ["title", "StadiumId", "year"]}
    schema = [Table(table, tuple(Column(column, "TEXT") for column in columns)) for table, columns in names.items()]
    assert likely_tables(schema, "How old are the singers?", [])[0] == "singer"
    assert likely_tables(schema, "Which stadiums had concerts in one year?", [])[0] == "concert"
    assert likely_tables(schema, "Who is Joe Sharp?", ["singer"])[0] == "singer"
    assert likely_tables(schema, "", []) == list(names)
