"""Reading a model's replies: the query in each kind of them, and in linear time."""

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tree.replies import extract_sql

REPLIES = {
    "fence": ("Here you are:\n```sql\nSELECT 1;\n```\nIt counts.", "SELECT 1"),
    "fence without language": ("```\nSELECT a\nFROM t\n```", "SELECT a\nFROM t"),
    "last fence wins": ("```sql\nSELECT 1\n```\nbetter:\n```sql\nSELECT 2\n```", "SELECT 2"),
    "query beats other block": ("```sql\nSELECT 1\n```\n```python\nprint(1)\n```", "SELECT 1"),
    "fence cut off": ("```sql\nSELECT a FROM t WHERE", "SELECT a FROM t WHERE"),
    "fence on one line": ("```sql SELECT 1```", "SELECT 1"),
    "answer": ("I think.\n<answer>SELECT 3</answer>", "SELECT 3"),
    "answer with fence": ("<answer>\n```sql\nSELECT 3\n```\n</answer>", "SELECT 3"),
    "answer beats fence": ("```sql\nSELECT 1\n```\n<answer>SELECT 3</answer>", "SELECT 3"),
    "bare": ("SELECT name FROM t", "SELECT name FROM t"),
    "bare with prose": ("The query is:\nSELECT name\nFROM t;\nIt lists names.", "SELECT name\nFROM t"),
    "bare to blank line": ("SELECT name FROM t\n\nThis lists names.", "SELECT name FROM t"),
    "bare with": ("WITH a AS (SELECT 1) SELECT * FROM a", "WITH a AS (SELECT 1) SELECT * FROM a"),
    "bare recursive": (
        "with recursive c(n) as (select 1) select n from c",
        "with recursive c(n) as (select 1) select n from c",
    ),
    "parenthesised": ("(SELECT 1) UNION (SELECT 2)", "(SELECT 1) UNION (SELECT 2)"),
    "semicolon in text": ("SELECT ';' FROM t; done", "SELECT ';' FROM t"),
    "comment first": ("```sql\n-- names\nSELECT name FROM t\n```", "-- names\nSELECT name FROM t"),
    "write is kept for the executor to refuse": ("```sql\nDELETE FROM t\n```", "DELETE FROM t"),
    "prose only": ("I cannot answer this question with the tables given.", ""),
    "prose with a keyword": ("With this data, you would select the names.", ""),
    "other code": ("```python\nprint('SELECT')\n```", ""),
    "empty": ("", ""),
    # fences
    "sqlite3": ("```sqlite3\nSELECT 1\n```", "SELECT 1"),
    "capitals": ("```SQLITE\nSELECT 1\n```", "SELECT 1"),
    "another dialect": ("```postgresql\nSELEC 1\n```", "SELEC 1"),
    "no space after the language": ("```sqlSELECT 1```", "SELECT 1"),
    "info string": ('```sql title="first; query"\nSELECT 1\n```', "SELECT 1"),
    "attributes": ("```{.sql .numberLines}\nSELEC 1\n```", "SELEC 1"),
    "query on the fence's line": ("```SELECT a\nFROM t\n```", "SELECT a\nFROM t"),
    "comment on the fence's line": ("```sql -- names\nSELECT a\n```", "-- names\nSELECT a"),
    "four marks": ("````sql\nSELECT 1\n````\nIt counts.", "SELECT 1"),
    "closed by more marks": ("```sql\nSELECT 1\n````\nIt counts.", "SELECT 1"),
    "three marks within four": ("````markdown\n```sql\nSELECT 1\n```\n````", "SELECT 1"),
    "tildes": ("~~~sql\nSELECT ~~~1, `a``b`\n~~~\nIt counts.", "SELECT ~~~1, `a``b`"),
    "tildes cut off": ("~~~\nSELECT 1", "SELECT 1"),
    "Windows line ends": ("```sql\r\nSELECT a\r\nFROM t;\r\n```\r\nIt counts.\r\n", "SELECT a\r\nFROM t"),
    "fence repeated": ("```sql\n```sql\nSELECT 1\n```", "SELECT 1"),
    "fence repeated without language": ("```sql\n```\nSELECT 1\n```\nIt counts.", "SELECT 1"),
    "fence repeated after prose": ("```sql\nHere it is:\n```sql\nSELECT 1\n```", "SELECT 1"),
    "prose in the block": ("```sql\nTo count them:\n\nSELECT 1\nFROM t;\nIt counts.\n```", "SELECT 1\nFROM t"),
    "prose behind the semicolon": ("```sql\nSELECT ';' FROM t;\n\nThis lists texts.\n```", "SELECT ';' FROM t"),
    "comment behind the semicolon": ("```sql\nSELECT 1; -- one; and only\n```", "SELECT 1"),
    "several statements": ("```sql\nSELECT 1;\nSELECT 2;\n```", "SELECT 1;\nSELECT 2"),
    "statement before the query": ("```sql\nSELECT 1; DROP TABLE t;\n```", "SELECT 1; DROP TABLE t"),
    "WITH without parentheses": ("```sql\nWITH a AS\nSELECT 1\n```", "WITH a AS\nSELECT 1"),
    "write with a query in it": ("```sql\nINSERT INTO t\nSELECT 1\n```", "INSERT INTO t\nSELECT 1"),
    "broken query with a good one in it": ("```sql\nSELEC a FROM (\nSELECT 1)\n```", "SELEC a FROM (\nSELECT 1)"),
    "blank lines in a block": ("```sql\nSELECT a,\n\n  b\n\nFROM t\n```", "SELECT a,\n\n  b\n\nFROM t"),
    # thinking
    "thinking": ("<think>\nPerhaps ```sql\nSELECT 1\n``` then.\n</think>\n```sql\nSELECT 2\n```", "SELECT 2"),
    "thinking after the fence": ("```sql\n<think>\nSELECT 1;\n</think>\nSELECT a\n\nFROM t\n```", "SELECT a\n\nFROM t"),
    "thinking, then another fence": ("```sql\n<think>SELECT 1</think>\n```sql\nSELECT 2\n```", "SELECT 2"),
    "thinking without an end": ("```sql\n<think>\nPerhaps\n```sql\nSELECT 1\n```", ""),
    "thinking without a beginning": ("Perhaps\nSELECT 1\n</think>\nSELECT 2", "SELECT 2"),
    "thinking opened by the template": ("```sql\nSELECT 1?\n</think>\nSELECT a\n\nFROM t", "SELECT a\n\nFROM t"),
    "thinking twice": ("<think>SELECT 1</think>\n<Think>SELECT 2</Think>\nSELECT 3", "SELECT 3"),
    "answer in the thinking": ("<think><answer>SELECT 1</answer></think><answer>SELECT 2</answer>", "SELECT 2"),
    # bare text
    "semicolon in names": ('SELECT `a;b`, [c;d], "e;f" FROM t; done', 'SELECT `a;b`, [c;d], "e;f" FROM t'),
    "semicolon in comments": ("SELECT 1 -- a;b\n, /* c; */ 2; done", "SELECT 1 -- a;b\n, /* c; */ 2"),
    "apostrophe in a comment": ("SELECT a -- it's; here\nFROM t; done", "SELECT a -- it's; here\nFROM t"),
    "quote cut off": ("SELECT a FROM t WHERE b = 'x", "SELECT a FROM t WHERE b = 'x"),
    "blank line inside": (
        "WITH a AS (\n SELECT 1\n\n)\n\nSELECT * FROM a\n\nIt counts.",
        "WITH a AS (\n SELECT 1\n\n)\n\nSELECT * FROM a",
    ),
    "blank line of Windows": ("SELECT 1\r\n\r\nIt counts.", "SELECT 1"),
    "label": ("Reasoning first.\n**SQL query:** SELECT 1;", "SELECT 1"),
    "quoted name after WITH": ('WITH "a b" (c, d) AS (SELECT 1, 2) SELECT c FROM "a b"',) * 2,
    "prose like WITH": ("With data as given, no query is possible.", ""),
    "empty fence": ("```sql\n```", ""),
}


@pytest.mark.parametrize(("reply", "sql"), REPLIES.values(), ids=REPLIES)
def test_sql_of_a_reply(reply, sql):
    assert extract_sql(reply) == sql


PIECES = ["```", "~~~", "````", "sql", "\n", " ", ";", "SELECT 1", "WITH a AS (", ")", "It's", "<think>", "</think>"]
PIECES += ["<answer>", "</answer>", "\r\n", "'", '"', "--", "/*", "`", "[", "\xa0", "DROP TABLE t"]


@given(st.text() | st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_reply_can_be_read(reply):
    sql = extract_sql(reply)
    assert sql == sql.strip() and not sql.endswith(";")


QUERIES = ["SELECT a\n\nFROM t", "WITH a AS (\n  SELECT ';'\n)\n\nSELECT `x;y` FROM a", "-- all\nSELECT '```;' || 1"]
FENCES = [("```", "```"), ("````", "````"), ("~~~", "~~~"), ("```", "````")]


@given(
    st.sampled_from(QUERIES),
    st.sampled_from(FENCES),
    st.sampled_from(["sql", "SQL", "sqlite", "sqlite3", "", " sql", 'sql title="a"']),
    st.sampled_from(["", "```sql\n", "Here it is:\n", "```sql\n<think>\nSELECT 9;\n</think>\n", "<think>a</think>"]),
    st.sampled_from(["", "\n", "\nIt counts; it's right.", "\n\nSELECT lists rows."]),
    st.sampled_from(["", ";"]),
)
def test_the_query_of_a_fence_comes_back_whole(query, fence, mark, before, after, end):
    assume("```" not in query or "```" not in before + fence[0].replace("````", ""))
    reply = f"{before}{fence[0]}{mark}\n{query}{end}\n{fence[1]}{after}"
    assert extract_sql(reply) == query
    assert extract_sql(reply.replace("\n", "\r\n")) == query.replace("\n", "\r\n")


REPEATED = {
    "fences on one line": "``` ",
    "fences and open texts": "```\n'",
    "fences and open comments": "```sql /*",
    "fences of two kinds": "~~~\n```x\n",
    "blank lines": "\n",
    "spaces": " ",
    "bare queries in parentheses": "(\nSELECT /*\n",
    "WITH that never ends": "WITH /*\n",
    "WITH with columns that never end": "WITH a (\n",
    "blank lines with comments behind": "SELECT a\n\n--c\n\n--c",
    "labels": "query: * * ",
    "thinking": "<think>",
    "answers": "<answer>x",
    "semicolons": ";",
}


@pytest.mark.parametrize("begin", ["", "```sql\n", "SELECT (\n"])
@pytest.mark.parametrize("piece", REPEATED.values(), ids=REPEATED)
def test_a_model_that_repeats_itself_is_read_in_linear_time(piece, begin):
    """Some hundredths of a second are enough; time that grows with the square takes minutes."""
    start = time.process_time()
    extract_sql(begin + piece * (100_000 // len(piece)))
    assert time.process_time() - start < 10


def test_blocks_within_blocks_end_somewhere():
    fences = ["`" * count for count in range(300, 2, -1)]
    assert extract_sql("\n".join([*fences, "It is in here:", "SELECT 1"])) == ""
    assert extract_sql("\n".join([*fences[-3:], "It is in here:", "SELECT 1"])) == "SELECT 1"
