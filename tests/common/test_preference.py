"""A preference pair: what a reward model reads of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import InputError, write_json
from common.preference import answer, check_results, read_pairs

TEXTS = st.text(max_size=50)


@given(TEXTS, TEXTS, st.integers(0, 60))
def test_an_answer_holds_the_whole_query_and_the_beginning_of_its_result(sql, result, length):
    read = answer(sql, result, length)
    assert read.startswith(sql)
    shown = read[len(sql) :].removeprefix("\n\n")
    assert len(shown) <= length
    assert shown == result[:length] or (len(result) > length and shown == result[: length - 1] + "…") or not length


@given(TEXTS, TEXTS)
def test_without_results_an_answer_is_the_bare_query(sql, text):
    assert answer(sql, text, 0) == answer(sql, "", 300) == sql


def test_a_pair_as_it_is_read(tmp_path, pair_rows):
    write_json(tmp_path / "pairs.json", pair_rows)
    pair = read_pairs(tmp_path / "pairs.json")[0]
    read = pair.as_read(10)
    assert read.chosen == f"{pair.chosen}\n\n{pair.chosen_result[:9]}…" and read.prompt == pair.prompt
    assert read.rejected == f"{pair.rejected}\n\n{pair.rejected_result[:9]}…" and read.nodes == pair.nodes
    assert pair.as_read(0) == pair


@pytest.mark.parametrize("column", ["chosen_result", "rejected_result"])
@pytest.mark.parametrize("nothing", ["", None])
def test_a_pair_that_does_not_say_what_its_queries_gave_is_named(tmp_path, pair_rows, column, nothing):
    rows = [*pair_rows, pair_rows[0] | {column: nothing}]
    write_json(tmp_path / "pairs.json", rows)
    pairs = read_pairs(tmp_path / "pairs.json")
    check_results("pairs.json", pairs[:-1])
    with pytest.raises(InputError, match=f"pairs.json: row {len(pair_rows)}: .*{column}.*--result_length 0"):
        check_results("pairs.json", pairs)
