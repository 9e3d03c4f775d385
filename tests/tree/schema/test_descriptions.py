"""BIRD's column descriptions: files as they are published, with every trouble that they have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import InputError
from tree.schema.descriptions import Description, _decoded, explains_codes, read_descriptions

HEADER = "original_column_name,column_name,column_description,data_format,value_description"


@pytest.fixture
def describe(tmp_path):
    """Write one CSV (text or bytes) into a description folder and read it for a table `t` with these columns."""

    def read(content: str | bytes, *columns: str, name: str = "t.csv", table: str = "t"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_descriptions(tmp_path, {table: columns})

    return read


def test_no_folder_describes_nothing(tmp_path):
    found = read_descriptions(tmp_path / "database_description", {"t": ["a"]})
    assert found.by_column == {}
    assert found.unmatched == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_encodings(describe, encoding):
    text = f"{HEADER}\r\nq,,Prix – the team’s race,text,• höher: better\r\n"
    assert describe(text.encode(encoding), "q").by_column == {
        ("t", "q"): Description("Prix – the team’s race", "höher: better")
    }


MARK = "\ufeff".encode()
MARKS = [MARK, MARK * 2, MARK + "\u200b".encode(), "\u200b\ufeff\u2060".encode(), "ï»¿".encode(), MARK + "ï»¿".encode()]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("header", [HEADER, '"original_column_name","column_name","column_description"'])
@pytest.mark.parametrize("dash", [b"\x96", b"\xe2\x80\x93"])
@pytest.mark.parametrize("bullet", [b"\x95", b"\xe2\x80\xa2"])
def test_marks_are_no_part_of_the_file_whatever_follows(describe, mark, header, dash, bullet):
    found = describe(mark + header.encode() + b"\r\nq,,a " + dash + b" b " + bullet + b" c,,\r\n", "q")
    assert found.by_column == {("t", "q"): Description("a – b • c", "")}


def test_a_mark_within_quotes(describe):
    text = HEADER.replace("original_column_name", '"\ufefforiginal_column_name"')
    assert describe(f"{text}\n\ufeffq,,why,,\n", "q").by_column == {("t", "q"): Description("why", "")}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_utf_16_and_32_with_a_mark(describe, encoding):
    text = f"\ufeff{HEADER}\r\nq,,Prix – 東京 𝄞,text,\r\n"
    assert describe(text.encode(encoding), "q").by_column["t", "q"].meaning == "Prix – 東京 𝄞"
    assert describe(text.encode(encoding)[:-1], "q").by_column["t", "q"].meaning == "Prix – 東京 𝄞"  # cut off


@given(st.sampled_from(["utf-8", "cp1252"]), st.lists(st.sampled_from(list("aé–€ßž")), min_size=1).map("".join))
def test_each_byte_is_read_as_what_it_must_be(encoding, text):
    data = MARK + f"é{text}é a".encode(encoding)
    read = _decoded(data).removeprefix("\ufeff")
    assert read == f"é{text}é a" or encoding == "cp1252"
    assert "\ufffd" not in read


def test_bytes_of_no_encoding_and_cp1252_taken_for_latin_1(describe):
    found = describe(f"{HEADER}\na,,caf".encode() + b"\xe9\x81" + b",,\n", "a")
    assert found.by_column["t", "a"].meaning == "café�"
    found = describe(
        f'{HEADER}\na,,,text,"\u0095 cl: chlorine\n\u0095 c: carbon"\nb,,,text,\u0093-\u0094: single\n', "a", "b"
    )
    assert found.by_column["t", "a"].values == "cl: chlorine; c: carbon"
    assert found.by_column["t", "b"].values == "“-”: single"


def test_header_of_any_case_with_spaces_and_empty_columns_and_rows(describe):
    header = "\n Original_Column_Name ,column name,Column_Description ,data_format,value_description,,\n"
    text = f"{header},,,,,,\na,,why,,how,,\n,x,y,,,,\n\n"
    assert describe(text, "a").by_column == {("t", "a"): Description("why", "how")}


def test_short_rows(describe):
    assert describe(f"{HEADER}\na\nb,is b\n", "a", "b").by_column == {
        ("t", "a"): Description("", ""),
        ("t", "b"): Description("is b", ""),
    }


def test_names_that_differ_in_case_and_spaces(describe):
    text = f"{HEADER}\n\u00a0Percent (%)  Free ,,one,,\nCITY name ,,two,,\nschool_type,,three,,\n"
    found = describe(text, "Percent (%) Free", "City Name", "School Type", name="Order Lines.csv", table="order_lines")
    assert [said.meaning for said in found.by_column.values()] == ["one", "two", "three"]
    assert list(found.by_column) == [("order_lines", name) for name in ("Percent (%) Free", "City Name", "School Type")]
    assert found.unmatched == ()


def test_the_same_name_goes_before_an_alike_one(describe):
    found = describe(f"{HEADER}\na_b,,one,,\nab,,two,,\nA B,,three,,\n", "ab", "a_b")
    assert found.by_column == {("t", "a_b"): Description("one", ""), ("t", "ab"): Description("two", "")}
    assert found.unmatched == ("t.A B",)  # it may be either


def test_unmatched_names_are_told(describe, tmp_path):
    (tmp_path / "gone.csv").write_text(f"{HEADER}\na,,x,,\n")
    (tmp_path / "._t.csv").write_bytes(b"\0\5\x16\7 what macOS leaves")
    found = describe(f'{HEADER}\na,,x,,\n"no\nsuch ",,x,,\n', "a")
    assert found.unmatched == ("gone.csv", "t.no such")
    assert list(found.by_column) == [("t", "a")]


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"name,meaning\na,b\n", b"original_column_name\0", "original_column_name".encode("utf-16-le")],
)
def test_files_that_describe_nothing(describe, content):
    with pytest.raises(InputError, match=r"t\.csv: .*; .+"):
        describe(content, "a")


def test_a_cell_that_never_ends(describe):
    with pytest.raises(InputError, match=r"t\.csv: line \d+ cannot be read as CSV"):
        describe(f'{HEADER}\na,,"{"x" * 200_000}', "a")


@pytest.mark.parametrize(
    ("column", "name", "description", "meaning"),
    [
        ("raceId", "race ID", "Race id ", ""),
        ("Charter (Y/N)", "", "Charter_Y/N", ""),
        ("dob", "date of birth ", "date of birth ", "date of birth"),
        ("dob", "date of birth", "when the driver was born", "date of birth: when the driver was born"),
        ("A11", "average salary", "", "average salary"),
        (
            "NumTst",
            "Number of Test Takers",
            "Number of Test Takers in this school",
            "Number of Test Takers in this school",
        ),
        ("circuitId", "circuit Id", "number of the circuit", "number of the circuit"),
        ("isPromo", "is promotion", "If it is a promotional card.", "If it is a promotional card."),
        ("positioning", "", "the player's \npositioning score\n", "the player's positioning score"),
    ],
)
def test_meaning(describe, column, name, description, meaning):
    text = f'{HEADER}\n"{column}","{name}","{description}",,\n'
    assert describe(text, column).by_column["t", column].meaning == meaning


@pytest.mark.parametrize(
    ("cell", "values"),
    [
        ("0: N;\n1: Y", "0: N; 1: Y"),
        ("+: positive\r\n\r\n-: negative", "+: positive; -: negative"),
        ("coded as follows:\n\n·\u00a0\u00a0   1 = yes\n\n·   0 = no\n", "coded as follows: 1 = yes; 0 = no"),
        ("commonsense evidence:\n\nrate = free / all", "rate = free / all"),
        ("in dollar \nCommonsense reasoning: below 0 is debt", "in dollar; below 0 is debt"),
        (
            "Open/ Closed  \ncommon sense evidence \n\ufffd Open: begun.\n\ufffd Closed: ended.",
            "Open/ Closed; Open: begun. Closed: ended.",
        ),
        ("no evidence of it", "no evidence of it"),
        ("Not useful ", ""),
        ("* means unknown", "* means unknown"),
    ],
)
def test_values_on_one_line(describe, cell, values):
    assert describe(f'{HEADER}\na,,,,"{cell}"\n', "a").by_column["t", "a"].values == values


def test_nothing_is_cut(describe):
    long = "; ".join(f"{number:03}: kind {number}" for number in range(500))
    assert describe(f'{HEADER}\na,,,,"{long}"\n', "a").by_column["t", "a"].values == long


@pytest.mark.parametrize(
    ("text", "stored", "explains"),
    [
        ("'A' stands for finished; 'B' stands for running", ["B"], True),
        ("F：female; M：male", ["M", "F"], True),
        ("a list of kinds", ["A"], False),
        ("Closed: it is over", ["closed"], True),
        ("0: disallow 1: allow", [1], True),
        ("1: yes", [1.0], True),
        ("52 – Elementary School", ["52"], True),
        ("02 – State Board", [2], False),
        ("0-100, calculated by FIFA", [0, 100], False),
        ("Normal range: 6.0 < N < 85", [6.0, 85], False),
        ("+: positive; -: negative", ["-"], True),
        ("“-”: single bond; '=': double bond", ["="], True),
        ("full name is first + last", ["+"], False),
        ("“POPLATEK TYDNE” stands for weekly", ["POPLATEK TYDNE"], True),
        ("monthly", ["month"], False),
        ("null means none", [None, b"null", ""], False),
        ("", ["a"], False),
        ("anything", [], False),
    ],
)
def test_explains_codes(text, stored, explains):
    assert explains_codes(text, stored) is explains
