"""Rows of files of any origin: lists and JSON Lines, read as json reads them, with the columns that are expected."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import add_question_id
from common.files import InputError, write_json_list
from common.rows import fit_row, iterate_json, iterate_rows, read_rows

VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
ITEMS = st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
LAYOUTS = st.sampled_from([{}, {"indent": 2}, {"indent": 30}, {"separators": (",", ":")}])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("rows") / "rows.json"


def one_per_line(texts: list[str]) -> str:
    return "[\n" + ",\n".join(texts) + "\n]"


@settings(max_examples=50)
@given(st.lists(ITEMS), LAYOUTS, st.booleans(), st.booleans())
def test_a_list_is_read_as_json_reads_it_whatever_its_layout(path, items, layout, escaped, by_line):
    if by_line:  # where the items are written in several lines each, only some have one of their own
        text = one_per_line([json.dumps(item, ensure_ascii=escaped, **layout) for item in items])
    else:
        text = json.dumps(items, ensure_ascii=escaped, **layout)
    path.write_text(text, encoding="utf-8")
    assert repr(list(iterate_json(path))) == repr(json.loads(text))  # 1 and 1.0 are not the same


@settings(max_examples=50)
@given(st.lists(st.fixed_dictionaries({}, optional={"a": ITEMS, "b": ITEMS}), min_size=1))
def test_lines_are_read_like_a_list(path, items):
    path.write_text("\n\n".join(json.dumps(item) for item in items))
    assert list(iterate_json(path)) == items
    path.write_text(json.dumps(items[0], indent=2))
    assert list(iterate_json(path)) == items[:1]


@settings(max_examples=50)
@given(st.lists(ITEMS, min_size=1), st.booleans(), st.data())
def test_a_list_that_is_cut_off_is_refused(path, items, by_line, data):
    text = one_per_line(list(map(json.dumps, items))) if by_line else json.dumps(items)
    path.write_text(text[: data.draw(st.integers(1, len(text) - 1))])
    with pytest.raises(InputError, match=r"rows.json: broken JSON at line \d+ column \d+ \("):
        list(iterate_json(path))


@pytest.mark.parametrize("lines", [["1", "2"], ["1,,", "2"], ["1,", "2,"], ["1,", "", "2 3"], ["1,", "2", "]", "["]])
def test_a_list_by_line_is_read_as_strictly_as_json_reads_it(path, lines):
    path.write_text("\n".join(["[", *lines, "]"]))
    with pytest.raises(InputError, match="broken JSON"):
        list(iterate_json(path))


def test_memory_holds_one_item_of_a_list_written_item_by_item(path):
    items = [1, "ä\n\u2028", None, {"a": [1.5]}]
    assert write_json_list(path, iter(items)) == 4
    assert list(iterate_json(path)) == items
    write_json_list(path, ("x" * 10_000 for _ in range(2000)))
    tracemalloc.start()
    assert sum(map(len, iterate_json(path))) == 20_000_000
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("lines", [True, False])
def test_question_files_keep_their_layout(path, lines):
    content = [{"db_id": "a", "question": "你好\u2028"}, {"db_id": "b", "question": ""}]
    path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content))
    add_question_id.main(["--file", str(path)])
    assert read_rows(path, {}) == [{"question_id": number} | row for number, row in enumerate(content)]
    assert path.read_bytes().count(b"\n") == (2 if lines else 12)


BROKEN = [
    (None, "no such file; look here"),
    (b"", "found nothing; look here"),
    (b" \n", "found nothing"),
    (b"7", "expected a JSON list or JSON Lines, found '7'"),
    (b"[1]", "row 0 is int, expected an object"),
    (b"[null]", "row 0 is null, expected an object"),
    (b'{"a": 1}', "row 0 has no 'n' (it has: a)"),
    (b'[{"n": 1}, {"m": 1}]', "row 1 has no 'n'"),
    (b'[{"n": "1"}]', "row 0: 'n' is str, expected int"),
    (b'[{"n": true}]', "row 0: 'n' is bool"),
    (b'[{"n": 1.5}]', "row 0: 'n' is float"),
    (b'[{"n": null}]', "row 0: 'n' is null, expected int"),
    (b'[{"n": NaN}]', "row 0: 'n' is null, expected int"),
    (b'[{"n": -Infinity}]', "row 0: 'n' is null, expected int"),
    (b'[{"n": 1e999}]', "row 0: 'n' is null, expected int"),
    (b'[{"n": 9223372036854775808}]', "row 0: 'n' takes more than 64 bits"),
    (b'[{"n": 1e30}]', "row 0: 'n' takes more than 64 bits"),
    (b'[{"n": 1}, {"n": ' + b"7" * 5000 + b"}]", "row 0 or after it: Exceeds the limit"),
    (b'[\n{"n": 1},\n{"n": ' + b"7" * 5000 + b"}\n]", "row 1 or after it: Exceeds the limit"),
    (b"[{]", "broken JSON at line 1 column 3 ("),
    (b'[{"n": 1}, {]', "broken JSON at line 1 column 13 ("),
    (b'[\n{"n": 1},\n{"n": 2},', "broken JSON at line 3 column"),
    (b'[{"n": 1} {"n": 2}]', "broken JSON at line 1 column 11 (Expecting ',' delimiter)"),
    (b'[\n{"n": 1}\n] more', "broken JSON at line 3 column 3 (Extra data)"),
    (b'{"n": 1}\n{"n": 2}\n{"n"', "broken JSON at row 2 ("),
    (b'{"n": 1},\n{"n": 2}', "broken JSON at line 1 column 9 ("),
    (b'{"n": 1}\n5', "row 1 is int, expected an object"),
    (b"\xff\xfe[\x00", "not UTF-8, in row 0"),
    (b'[{"n": 1}, {"n": "\xff"}]', "not UTF-8, in row 0 or after it"),
    (b'[{"n": 1, "t": "\xed\xa0\xbd"}]', "not UTF-8"),  # a surrogate in bytes
    (b'[{"n": 1}, {"n": 2, "t": [{"u": "\\ud83d"}]}]', r"row 1: 't' holds half of a surrogate pair, '\ud83d'"),
    (b'{"n": 1, "\\udc80": ""}', r"row 0: '\udc80' holds half"),
    (b"[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("content", "words"), BROKEN)
@pytest.mark.parametrize("read", [read_rows, lambda *given: list(iterate_rows(*given))], ids=["whole", "by row"])
def test_broken_files_are_named_with_the_row(tmp_path, content, words, read):
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path, {"n": int}, "look here")
    message = str(caught.value)
    assert str(path) in message and words in message and "\n" not in message


@pytest.mark.parametrize("content", [b"[]", b" [ ] "])
def test_an_empty_list_has_no_rows(tmp_path, content):
    (tmp_path / "rows.json").write_bytes(content)
    assert list(iterate_rows(tmp_path / "rows.json", {"n": int})) == []
    with pytest.raises(InputError, match="an empty list; look here"):
        read_rows(tmp_path / "rows.json", {}, "look here")


@pytest.mark.parametrize("content", [b'\xef\xbb\xbf[{"n": 1}]', b'\xef\xbb\xbf{"n": 1}', b'\r\n [{"n":1}]\r\n'])
def test_a_byte_order_mark_and_white_space_are_no_trouble(tmp_path, content):
    (tmp_path / "rows.json").write_bytes(content)
    assert read_rows(tmp_path / "rows.json", {"n": int}) == [{"n": 1}]


def test_a_whole_surrogate_pair_is_a_character(tmp_path):
    (tmp_path / "rows.json").write_bytes(b'[{"t": "\\ud83d\\ude00"}]')
    assert list(iterate_json(tmp_path / "rows.json")) == read_rows(tmp_path / "rows.json", {}) == [{"t": "\U0001f600"}]


def test_missing_and_null_columns_have_their_defaults():
    columns = {"text": (str, ""), "id": (int, None), "distance": int | None, "more": list | str}
    given = {"id": 3.0, "distance": None, "more": [], "other": 1.5}
    assert fit_row("file", 0, given, columns) == {"text": "", "id": 3, "distance": None, "more": [], "other": 1.5}
    assert given["id"] == 3.0 and "text" not in given
    for wrong in ({"text": 7}, {"id": [1]}, {"id": "1"}, {"id": False}, {"distance": 0.5}, {"more": {}}):
        (column,) = wrong
        with pytest.raises(InputError, match=f"file: row 4: '{column}' is"):
            fit_row("file", 4, given | wrong, columns)
