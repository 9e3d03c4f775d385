"""Comparing queries without running them: equal in canonical form only when SQLite cannot tell them apart."""

import random
import sqlite3
from dataclasses import dataclass

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tree.sql.canonical import canonical_sql, first_equal
from tree.sql.tokens import tokens

# of each line, all are equal
EQUAL = [
    ["SELECT a FROM t", "select  A\nfrom T;", "SELECT a /* it's */ FROM t -- 'end", "\ufeffSELECT a FROM t; -- end;"],
    ["SELECT a FROM t", "SELECT/**/a/*/ */FROM--\r\nt\f;\t\r\n/* open", "SELECT \t\r\n\fa FROM t--"],
    ["SELECT [A] FROM `T`", "SELECT a FROM [t]", "SELECT `a` FROM t"],
    ["SELECT [Group], `a b` FROM t", "select `GROUP`,[A B] from t"],
    ["SELECT [a`b] FROM t", "SELECT `A``B` FROM t"],
    ['SELECT "a" FROM t', 'select"a"from t'],
    ["SELECT 1E5, 0X1F, X'AB', .5 FROM t", "SELECT 1e5,0x1f,x'ab',.5 FROM t"],
    ["SELECT t.a, COUNT( * ) FROM t WHERE a<=1", "select T . a , count(*) from t where A <= 1"],
    ["SELECT CAST(a AS VARCHAR(10)) FROM t", "SELECT cast ( a as varchar ( 10 ) )FROM t"],
    ["SELECT a FROM t WHERE b = 'X -- Y'", "SELECT a FROM t WHERE b='X -- Y' -- Z"],
    ["SELECT ?1, :a, $b::c(d) FROM t", "select ?1,:a,$b::c(d)from T"],
    ["SELECT [é] FROM [straße]", "SELECT é FROM straße"],
    ["SELECT a FROM (SELECT [a b] FROM t)", "select A from(select `A B` from T)"],
    ['SELECT a - 1, "-", "b" FROM (SELECT b FROM t)', 'select a-1,"-","b"from(select b from t)'],
    ["", ";", " -- nothing"],
]
# of each line, no two are equal
DIFFERENT = [
    ["SELECT a FROM t", "SELECT DISTINCT a FROM t", "SELECT a, FROM t", "(SELECT a FROM t)", "SELECT (a) FROM t"],
    ["SELECT a FROM t", "SELECT a FROM t;;", "SELECT a FROM t;\ufeff", "SELECT a FROM t; \v", "SELECT a FROM t /*"],
    ["SELECT a FROM t;\ufeff--;", "SELECT a FROM t;"],
    ["SELECT a FROM t;/*\ud800", "SELECT a FROM t;", "SELECT a FROM t -- \0"],
    ["SELECT\v1", "SELECT \v1", "SELECT 1"],
    ["SELECT a\xa0FROM t", "SELECT a FROM t", "SELECT a\u3000FROM t", "SELECT a\ufeff FROM t"],
    ["SELECT 'a' FROM t", "SELECT 'A' FROM t", 'SELECT "a" FROM t', 'SELECT "A" FROM t', "SELECT a FROM t"],
    ["SELECT 'a  b'", "SELECT 'a b'", "SELECT 'a''b'", "SELECT 'a' 'b'"],
    ["SELECT [order] FROM t", "SELECT order FROM t"],
    ["SELECT [true] FROM t", "SELECT true FROM t"],
    ["SELECT [current_date] FROM t", "SELECT current_date FROM t"],
    ["SELECT É FROM t", "SELECT é FROM t"],
    ["SELECT [É] FROM t", "SELECT [é] FROM t"],
    ["SELECT [a b] FROM t", "SELECT a b FROM t"],
    ["SELECT [\ufeffa] FROM t", "SELECT a FROM t"],
    ["SELECT 1a", "SELECT 1 a", "SELECT a1"],
    ["SELECT 0x1fg", "SELECT 0x1f g"],
    ["SELECT x'ab'", "SELECT x 'ab'", "SELECT X'aB' 'c'"],
    ["SELECT b x'zz' FROM t", "SELECT b x 'zz' FROM t"],
    ["SELECT 1.0", "SELECT 1", "SELECT 1.", "SELECT 1e0", "SELECT 01", "SELECT +1"],
    ["SELECT a -> 'b'", "SELECT a ->> 'b'", "SELECT a - > 'b'"],
    ["SELECT a || b", "SELECT a | b", "SELECT a | | b"],
    ["SELECT a = b", "SELECT a == b", "SELECT a IS b", "SELECT a <= b", "SELECT a < = b"],
    ["SELECT a <> b", "SELECT a != b", "SELECT a < > b"],
    ["SELECT ?", "SELECT ?1", "SELECT :a", "SELECT :A", "SELECT @a", "SELECT $a"],
    ["SELECT a x FROM t u", "SELECT a AS x FROM t u", "SELECT a x FROM t AS u"],
    ["SELECT a FROM t JOIN u", "SELECT a FROM t INNER JOIN u", "SELECT a FROM t, u"],
    ["SELECT a FROM t LIMIT 2, 3", "SELECT a FROM t LIMIT 3 OFFSET 2"],
    ["SELECT a FROM t WHERE b = 'it", "SELECT a FROM t WHERE b = 'IT"],
    ["SELECT IFNULL(a, 1) FROM t", "SELECT coalesce(a, 1) FROM t"],
    [f"SELECT CAST(a AS {kind}) FROM t" for kind in ("INT", "INTEGER", "REAL", "DECIMAL", "NUMERIC", "'REAL'", "DATE")],
    # SQLite looks for REAL in all of a type's text
    ["SELECT CAST(a AS x /*REAL*/ y) FROM t", "SELECT CAST(a AS x y) FROM t"],
    ["SELECT CAST(a AS [x] real) FROM t", "SELECT CAST(a AS x real) FROM t"],
    # the text of an expression is the name of its column
    ['SELECT "a+1" FROM (SELECT a+1 FROM t)', 'SELECT "a+1" FROM (SELECT a + 1 FROM t)'],
    ["SELECT [a+1:1] FROM (SELECT a+1, a+1 FROM t)", "SELECT [a+1:1] FROM (SELECT a + 1, a + 1 FROM t)"],
    ["SELECT q.'a+1' FROM (SELECT a+1 FROM t) q", "SELECT q.'a+1' FROM (SELECT a + 1 FROM t) q"],
    ['SELECT "null" FROM (SELECT NULL)', 'SELECT "null" FROM (SELECT NULL /* none */)'],
    [f'WITH q AS (SELECT "A"{sign}1 FROM t) SELECT ["A"||1] FROM q' for sign in ("||", " || ")],
    *[[f"SELECT * FROM (SELECT a+1 FROM t) {join}", f"SELECT * FROM (SELECT a + 1 FROM t) {join}"] for join in (
        "NATURAL JOIN (SELECT a+1 FROM t)",
        "JOIN (SELECT a+1 FROM t) USING ('a+1')",
    )],
    # expressions are compared by how numbers and types are written
    ["SELECT a*1E5 FROM t UNION SELECT 1 ORDER BY a*1e5", "SELECT a*1E5 FROM t UNION SELECT 1 ORDER BY a*1E5"],
    ["SELECT CAST(a AS INT) FROM t UNION SELECT 1 ORDER BY CAST(a AS int)",
     "SELECT CAST(a AS INT) FROM t UNION SELECT 1 ORDER BY CAST(a AS INT)"],
    ["SELECT sql FROM sqlite_stmt", "SELECT  sql FROM sqlite_stmt"],
]  # fmt: skip


@pytest.mark.parametrize("texts", EQUAL, ids=lambda texts: texts[0])
def test_equal_queries_have_one_key(texts):
    assert len({canonical_sql(text) for text in texts}) == 1


@pytest.mark.parametrize("texts", DIFFERENT, ids=lambda texts: ascii(texts[0]))
def test_different_queries_have_different_keys(texts):
    assert len({canonical_sql(text) for text in texts}) == len(texts)


# --- against SQLite itself ------------------------------------------------------------------------------------------

ROWS = """
INSERT INTO t (a, b, d) VALUES (1, 'Ann', '7'), (2, 'ann', 'x'), (3.5, 'a+1', NULL), ('4', x'41', '2020-01-05');
CREATE TABLE u (a, c);
INSERT INTO u VALUES (1, 'q'), (2, 'Q'), ('4', 'ann');
"""
SCRIPTS = (  # what stands in double quotes is text in the one, a column in the other
    f"CREATE TABLE t (a, b, d); {ROWS}",
    f"""CREATE TABLE t (a, b, d, "ann" DEFAULT 5, "a+1" DEFAULT 6, "1" DEFAULT 7, "true" DEFAULT 8, "null" DEFAULT 9,
        "order" DEFAULT 'o', "É" DEFAULT 'e'); {ROWS}""",
)
COMMON = ["a", "A", "b", "B", "[a]", "`B`", '"a"', "t.a"]
RARE = ['"Ann"', '"ann"', "[ann]", '"a+1"', "[A + 1]", "`a+1`", '"a +1"', "[1]", '"1"', '"null"', "true", "[true]"]
RARE += [
    "[NULL:1]",
    "[a+1:1]",
    '"-a"',
    '"CAST(a AS INT)"',
    "q.'a+1'",
    "q.[a+1]",
    '["ann"]',
    "É",
    "[É]",
    "[é]",
    "[order]",
]
VALUES = [
    "'Ann'",
    "'ann'",
    "'a+1'",
    "1",
    "1.5",
    "1E1",
    "1e1",
    "0x1F",
    "0X1f",
    "x'41'",
    "X'4a'",
    "x'4A'",
    "NULL",
    "null",
]
BROKEN = [
    "?1",
    ":a",
    "1a",
    "0x1FG",
    "'it''s",
    "[open",
    "x'zz'",
    "@",
    "!",
    "--",
    "/*",
    "\v",
    "\ufeff",
    ";",
    "LEN(b)",
    ",",
]
TYPES = ["INT", "int", "INTEGER", "REAL", "real", "DECIMAL", "NUMERIC", "[real]", "'REAL'", "x REAL", "x y", "[x] real"]
TYPES += ["VARCHAR ( 10 )", "double precision", "x [real]", "DATE"]
FUNCTIONS = ["abs", "ABS", "[abs]", '"abs"', "length", "LEN", "lower", "typeof", "max", "count", "nvl", "quote", "hex"]
OPERATORS = ["+", "-", "||", "=", "==", "<>", "!=", "<", "AND", "or", "LIKE", "GLOB", "IS", "is not", "->>", "*", "<<"]
TABLES = ["t", "T", "[t]", "`T`", '"t"', "t q", "t AS [Q]"]
ENDINGS = ["", "", "WHERE {}", "ORDER BY {}", "GROUP BY {}", "UNION SELECT a FROM u ORDER BY {}"]


@dataclass(frozen=True)
class Writer:
    """Writes queries by chance, right and wrong ones, with single spaces between their tokens."""

    chance: random.Random

    def atom(self) -> str:
        kind = self.chance.choices([COMMON, VALUES, RARE, ["a + 1", "CAST ( a AS INT )"], BROKEN], [60, 25, 15, 10, 1])[
            0
        ]
        return self.chance.choice(kind)

    def expression(self, depth: int = 2) -> str:
        choice = self.chance.choice
        form = self.chance.randrange(8) if depth else 0
        if form < 3:
            return self.atom()
        one, other = self.expression(depth - 1), self.expression(depth - 1)
        return {
            3: f"{one} {choice(OPERATORS)} {other}",
            4: f"{choice(['CAST', 'cast'])} ( {one} AS {choice(TYPES)} )",
            5: f"{choice(FUNCTIONS)} ( {one} )",
            6: f"( {one} )",
            7: f"{one} IN ( {other} , 'ann' {choice(['', '', '', ','])})",
        }[form]

    def query(self) -> str:
        inner = f"SELECT {self.expression()} FROM {self.chance.choice(TABLES)}"
        sources = [self.chance.choice(TABLES), f"( {inner} ) q", f"( {inner} ) NATURAL JOIN ( SELECT a + 1 FROM t ) q"]
        end = self.chance.choice(ENDINGS).format(self.expression(1))
        return f"SELECT {self.expression()} FROM {self.chance.choice(sources)} {end}".strip()

    def written(self, query: str, layout: list[str], ends: list[str]) -> str:
        """The query as somebody may write it."""
        words = [token.text for token in tokens(query)]
        words = [word.swapcase() if self.chance.random() < 0.2 else word for word in words]
        spaces = self.chance.choices([" ", *layout], [3 * len(layout), *[1] * len(layout)], k=len(words))
        text = "".join(map("".join, zip(words, spaces, strict=True))).rstrip(" ")
        return text + self.chance.choice(ends)


PLAIN_LAYOUT = [" ", "\n", "\t ", "/**/", " /* c */", "/*REAL*/", " --x\n", "\r\n"]
PLAIN_ENDS = ["", "", ";", "; --x", "/* */", "-- ;"]
ODD_LAYOUT, ODD_ENDS = ["", "\v", " \v", "\ufeff", "\xa0"], [";;", "/*", ";\ufeff", "; \v"]


@pytest.fixture(scope="module")
def connections():
    opened = [sqlite3.connect(":memory:") for _ in SCRIPTS]
    for connection, script in zip(opened, SCRIPTS, strict=True):
        connection.executescript(script)
    yield opened
    for connection in opened:
        connection.close()


def results(connections, sql: str) -> list[str]:
    found = []
    for connection in connections:
        try:
            found.append(repr(connection.execute(sql).fetchall()))
        except (sqlite3.Error, ValueError):
            found.append("error")
    return found


@settings(max_examples=1_000)
@given(st.randoms(use_true_random=True), st.integers(0, 9))
def test_whatever_has_one_key_has_one_result(connections, chance, odd):
    """The key is a query too, so any two queries with one key are compared with each other through it."""
    writer = Writer(chance)
    query = writer.query()
    layout, ends = (ODD_LAYOUT + PLAIN_LAYOUT, ODD_ENDS) if odd == 0 else (PLAIN_LAYOUT, PLAIN_ENDS)
    keys = set()
    for text in (query, writer.written(query, layout, ends)):
        key, found = canonical_sql(text), results(connections, text)
        event("fails" if set(found) == {"error"} else "runs" if key == text else "runs, folded")
        assert results(connections, key) == found
        assert canonical_sql(key) == key
        keys.add(key)
    event("equal" if len(keys) == 1 else "different")


PLAIN = [
    "SELECT a , COUNT ( * ) FROM t AS q WHERE b = 'ann' GROUP BY [a] HAVING COUNT ( * ) > 1E0",
    "SELECT CAST ( SUM ( a ) AS REAL ) * 100 / COUNT ( b ) FROM t",
    "SELECT q . n FROM ( SELECT a + 1 AS n FROM t ) q JOIN `u` ON u . a <= q . n ORDER BY q . n DESC LIMIT 0X1",
    "WITH `The First` AS ( SELECT DISTINCT b FROM t ) SELECT b || x'41' FROM [The First] WHERE b <> \"ann\"",
    "SELECT a FROM t WHERE d IN ( SELECT d FROM t WHERE a -> '$.x' IS NOT NULL ) AND [order] NOT LIKE '%''%'",
]


@given(st.sampled_from(PLAIN), st.randoms(use_true_random=True))
def test_layout_and_letter_case_are_folded(query, chance):
    text = Writer(chance).written(query, PLAIN_LAYOUT, PLAIN_ENDS)
    quoted, before = ([token.text for token in tokens(sql) if token.text[0] in "'\""] for sql in (text, query))
    assert (canonical_sql(text) == canonical_sql(query)) == (quoted == before)  # but not that of text


@given(st.lists(st.sampled_from([text for texts in EQUAL for text in texts]), max_size=12))
def test_first_equal_is_that_of_canonical_form(sqls):
    keys = [canonical_sql(sql) for sql in sqls]
    assert first_equal(sqls) == [keys.index(key) for key in keys]
