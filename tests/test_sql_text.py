"""Comparing queries without running them: the quick key never parts what canonical form holds for equal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import run_script
from tree.sql_text import canonical_sql, first_equal, rough_key

# of each line, all are equal in canonical form
EQUAL = [
    ["SELECT a FROM t", "select  A\nfrom T;", "SELECT a /* it's */ FROM t -- 'end"],
    ['SELECT "a" FROM `t`', "SELECT [A] FROM [T]"],
    ["SELECT a x FROM t AS u", "SELECT a AS x FROM t u"],
    ["SELECT a FROM t, u WHERE a != .5", "SELECT a FROM t CROSS JOIN u WHERE a <> 0.5"],
    ["SELECT a FROM t LIMIT 2, 3", "SELECT a FROM t LIMIT 3 OFFSET 2"],
    ["SELECT a FROM t WHERE b NOTNULL AND c == 1", "SELECT a FROM t WHERE NOT b IS NULL AND c = 1"],
    ["SELECT IFNULL(a, 1), substr(b, 1, 2) FROM t", "SELECT coalesce(a, 1), SUBSTRING(b, 1, 2) FROM t"],
    ["SELECT a FROM t WHERE b NOT IN (1, 2)", "SELECT a FROM t WHERE NOT b IN (1, 2)"],
    ["SELECT a FROM t WHERE b = 'x -- y'", "SELECT a FROM t WHERE b == 'x -- y' -- z"],
    ["SELECT a FROM t WHERE b = 'X -- Y'"],
    ["SELECT CAST(a AS INT) FROM t", "SELECT CAST(a AS INTEGER) FROM t"],
    ["SELECT a FROM t WHERE", "SELECT  a FROM t WHERE ;"],
    ["SELECT COUNT(*) FROM t"],
    ["SELECT COUNT(a) FROM t"],
    ["SELECT DISTINCT a FROM t"],
    ["SELECT a FROM t ORDER BY a"],
    ["SELECT a FROM t ORDER BY a DESC"],
    [""],
]
TEXTS = [text for texts in EQUAL for text in texts]


@pytest.mark.parametrize("texts", EQUAL, ids=lambda texts: texts[0])
def test_equal_queries_have_equal_keys(texts):
    assert len({canonical_sql(text) for text in texts}) == 1
    assert len({rough_key(text) for text in texts}) == 1


def test_canonical_form_has_the_key_of_its_query(tmp_path):
    assert run_script("data/build_demo.py", "--output_dir", tmp_path / "demo").returncode == 0
    golds = [question["SQL"] for question in json.loads((tmp_path / "demo" / "train.json").read_text())]
    for sql in [*golds, *TEXTS]:
        assert rough_key(canonical_sql(sql)) == rough_key(sql)


@given(st.lists(st.sampled_from(TEXTS), max_size=12))
def test_first_equal_is_that_of_canonical_form(sqls):
    keys = [canonical_sql(sql) for sql in sqls]
    assert first_equal(sqls) == [keys.index(key) for key in keys]
