"""Prompts of a run: made from database and question alone, shortened to a budget, also for a huge database."""

import json
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.files import InputError
from tests.conftest import QUESTIONS, assert_one_line_error, make_database, run_main
from tests.strange_databases import REFUSED, STRANGE, make_strange
from tree.run.preflight import prepare_prompts
from tree.run.prompt_settings import PromptSettings
from tree.run.work_list import WorkList
from tree.schema.write import FORMATS, SHORTENINGS
from tree.tree_node import Question

TABLES, COLUMNS = 100, 20


def words(messages) -> list[str]:
    """A tokenizer for tests."""
    return messages[0]["content"].split()


def prepared(db_root, *questions: Question, longest: int = 10_000, **settings) -> tuple[WorkList, dict[int, int]]:
    work = WorkList(list(questions), "train.json", db_root, PromptSettings(max_prompt_tokens=longest, **settings))
    return work, prepare_prompts(work, words)


def asked(text: str, db_id: str = "shop", evidence: str = "", number: int = 0, sql: str = "SELECT 1") -> Question:
    return Question(number, db_id, text, evidence, sql)


@pytest.fixture
def described(shop):
    folder = shop.parent / "database_description"
    folder.mkdir()
    rows = [
        "\ufefforiginal_column_name,column_name,column_description,data_format,value_description",
        'category ,,"what kind of\narticle",text,"tool: used by hand\npart: used up"',
        "price,,not in the table,real,",
    ]
    (folder / "Product.csv").write_text("\n".join(rows), encoding="utf-8")
    return shop.parent.parent


@pytest.mark.parametrize("layout", FORMATS)
def test_descriptions_and_stored_values_stand_in_the_prompt(described, layout, capsys):
    question = asked("How many nails are there?", evidence="a tool is in category tool")
    work, _ = prepared(described, question, schema_format=layout)
    prompt = work.prompt(question)
    assert "what kind of article" in prompt and "tool: used by hand; part: used up" in prompt
    schema, rest = prompt.split("Stored values that the question may mean:\n")
    assert "product.name = 'nail'" in rest and "product.category = 'tool'" in rest
    assert rest.endswith("Evidence: a tool is in category tool\nQuestion: How many nails are there?")
    assert "shop: 1 descriptions of nothing in the database: product.price" in capsys.readouterr().out
    without, _ = prepared(described, question, schema_format=layout, no_values=True)
    assert without.prompt(question) == prompt.replace(
        f"Stored values that the question may mean:\n{rest.split('Evidence')[0]}", ""
    )
    # the questions of a database share what stands before their own part
    other = asked("Which parts?", number=1)
    work, _ = prepared(described, other, schema_format=layout)
    assert work.prompt(other).startswith(schema)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    gold=st.one_of(st.text(), st.sampled_from(["SELECT name FROM product WHERE name = 'nail'", "SELECT 'part'"])),
    difficulty=st.text(),
    longest=st.integers(90, 200),
    layout=st.sampled_from(FORMATS),
)
def test_gold_cannot_influence_the_prompt(shop, gold, difficulty, longest, layout):
    plain = asked(QUESTIONS[1][0])
    spied = Question(0, "shop", QUESTIONS[1][0], "", gold, difficulty)
    one, other = (
        prepared(shop.parent.parent, question, longest=longest, schema_format=layout) for question in (plain, spied)
    )
    assert one[0].prompt(plain) == other[0].prompt(spied)
    assert one[1] == other[1]


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """A database of 100 tables and 2,000 columns, with descriptions of all."""
    root = tmp_path_factory.mktemp("huge")
    script = []
    for table in range(TABLES):
        columns = ", ".join(f"column_{table}_{number} TEXT" for number in range(1, COLUMNS))
        script.append(f"CREATE TABLE thing_{table} (id INTEGER PRIMARY KEY, {columns});")
        values = ", ".join(f"'value {number}'" for number in range(1, COLUMNS))
        script.append(f"INSERT INTO thing_{table} VALUES ({table}, {values});")
    script.append("CREATE TABLE harbour (id INTEGER PRIMARY KEY, depth REAL, port_name TEXT);")
    script.append("INSERT INTO harbour VALUES (1, 12.5, 'Rotterdam');")
    make_database(root / "huge" / "huge.sqlite", "\n".join(script))
    folder = root / "huge" / "database_description"
    folder.mkdir()
    for table in range(TABLES):
        rows = [f"column_{table}_{number},,what number {number} says,text," for number in range(1, COLUMNS)]
        head = "original_column_name,column_name,column_description,data_format,value_description"
        (folder / f"thing_{table}.csv").write_text("\n".join([head, *rows]))
    return root


@pytest.mark.parametrize("layout", FORMATS)
def test_a_huge_schema_is_shortened_to_the_budget(huge, layout):
    question = asked("How deep is the harbour of Rotterdam?", "huge")
    work, lengths = prepared(huge, question, schema_format=layout, longest=1_000)
    prompt, shortened = work.prompt(question), work.shortened[0].names()
    assert lengths[0] == len(prompt.split()) <= 1_000
    assert shortened[:3] == list(SHORTENINGS) and len(shortened) > 3
    assert "table harbour" not in shortened and "port_name" in prompt
    kept = TABLES + 1 - (len(shortened) - 3)
    assert prompt.count("CREATE TABLE " if layout == "ddl" else "# Table: ") == kept > 1
    roomy, _ = prepared(huge, question, schema_format=layout, longest=1_000_000)
    assert roomy.shortened[0].names() == []


def test_a_run_records_what_was_left_out(huge, tiny_model, tmp_path):
    data = tmp_path / "train.json"
    data.write_text(
        json.dumps([{"question_id": 0, "db_id": "huge", "question": "How deep?", "SQL": "SELECT id FROM harbour"}])
    )
    run = run_main(
        *("tree.run_pipeline", "--data", data, "--db_root", huge, "--model", tiny_model, "--dry_run"),
        *("--output_dir", tmp_path / "out", "--max_prompt_tokens", "5000"),
    )
    assert run.returncode == 0, run.stderr
    assert "1 of 1 prompts have a shortened schema" in run.stdout
    sqlite3.connect(huge / "huge" / "huge.sqlite").close()


# --- databases of which not everything can be read --------------------------------------------------------------------


@pytest.fixture(scope="module")
def strange_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("strange")
    for name, strange in (STRANGE | REFUSED).items():
        make_strange(root / name / f"{name}.sqlite", strange)
    return root


def test_each_thing_that_cannot_be_read_is_named_once(strange_root, capsys):
    questions = [asked("Who is Bob?", name, number=number) for number, name in enumerate(STRANGE)]
    work, _ = prepared(strange_root, *questions)
    prompts = {question.db_id: work.prompt(question) for question in work.questions}
    assert all("CREATE TABLE t (" in prompt and "t.name = 'Bob'" in prompt for prompt in prompts.values())
    said = [line for line in capsys.readouterr().out.splitlines() if "is left out, because it cannot be read: " in line]
    for name, strange in STRANGE.items():
        lines = [line for line in said if line.startswith(f"warning: {name}: ")]
        assert len(lines) == len(strange.unread)
        for table, column in strange.unread:
            shown = (f"{table}.{column}" if column else table).replace("\udce9\udce8", r"\xe9\xe8")
            assert sum(f"{name}: {shown} is left out" in line for line in lines) == 1
    assert len(said) == sum(len(strange.unread) for strange in STRANGE.values())


@pytest.mark.parametrize("name", REFUSED)
def test_a_database_that_sqlite_refuses_is_named(strange_root, name):
    with pytest.raises(InputError, match=rf"{name}\.sqlite: malformed database schema .*newer SQLite"):
        prepared(strange_root, asked("Who is Bob?", name))


def test_a_run_over_strange_databases(strange_root, tiny_model, tmp_path):
    rows = [
        {"question_id": number, "db_id": name, "question": "Who is Bob?", "SQL": "SELECT name FROM t WHERE id = 2"}
        for number, name in enumerate(["regexp", "collation", "column name", "damaged pages", "inner tables"])
    ]
    data = tmp_path / "train.json"
    command = ("tree.run_pipeline", "--data", data, "--db_root", strange_root, "--model", tiny_model, "--dry_run")
    data.write_text(json.dumps(rows))
    run = run_main(*command, "--output_dir", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("is left out, because it cannot be read") == 3
    data.write_text(json.dumps([*rows, {**rows[0], "question_id": 9, "db_id": "no SQL"}]))
    assert_one_line_error(run_main(*command, "--output_dir", tmp_path / "out"), "no SQL.sqlite: malformed")
