"""One question about a SQLite file, with a fake generator and fake rewards: what is printed, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import pytest

from eval.search.ranking import ranked, ranking
from tests.conftest import assert_one_line_error, run_main
from tests.fake_search import pretend
from tests.fake_worker import FakeGenerator, FaultyGenerator
from tests.shop import QUESTIONS, make_database
from tests.tree.conftest import read

QUESTION, GOLD = QUESTIONS[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ask")
    make_database(folder / "my shop.db")
    return folder


@pytest.fixture
def ask(place, tiny_model, adapter, tmp_path):
    """Asks the question, with other flags, into tmp_path/out."""

    def run(*flags: object, generator: type = FakeGenerator):
        models = ("--model", tiny_model, "--base_model", tiny_model, "--adapter", adapter)
        where = ("--database", place / "my shop.db", "--question", QUESTION, "--output_dir", tmp_path / "out")
        with pytest.MonkeyPatch.context() as patch:
            pretend(patch.setattr, generator=generator)
            return run_main("tree.ask", *where, *models, *flags, cwd=place)

    return run


def test_a_file_and_a_question_give_queries_best_first_with_rewards_and_results(ask, place, tmp_path):
    before = (place / "my shop.db").read_bytes()
    run = ask("--num_roots", "8", "--budget", "12")
    assert run.returncode == 0, run.stderr
    [row] = read(tmp_path / "out" / "candidates.json")
    assert row["db_id"] == "my shop" and row["question"] == QUESTION
    printed = run.stdout.split(f"\n{QUESTION}\n")[1]
    different = {sql for sql in row["candidates"] if sql}
    assert f"\n{len(row['candidates'])} queries, {len(different)} different ones, the best first:" in printed
    assert len(re.findall(r"^\d+\. reward ", printed, re.MULTILINE)) == len(different)
    for node in row["search"]:
        if node["generated_sql"]:
            assert f"reward {node['reward']:.3f}, {node['outcome']}" in printed
            assert "    > " + node["execution_feedback"].splitlines()[0] in printed
    [answer] = re.findall(r"the answer\n    (.*)", printed)
    assert row["chosen"].startswith(answer)
    assert (place / "my shop.db").read_bytes() == before and len(list(place.iterdir())) == 1


def test_asking_again_begins_anew_with_other_evidence_and_settings(ask, tmp_path):
    assert ask("--num_roots", "4", "--budget", "4").returncode == 0
    run = ask("--num_roots", "2", "--budget", "2", "--evidence", "a hint: 42")
    assert run.returncode == 0, run.stderr
    [row] = read(tmp_path / "out" / "candidates.json")
    assert len(row["candidates"]) == 2 and "a hint: 42" in row["prompt"]


def test_descriptions_beside_the_file_are_shown(ask, place, tmp_path):
    folder = place / "database_description"
    folder.mkdir()
    header = "original_column_name,column_name,column_description,data_format,value_description\n"
    (folder / "product.csv").write_text(header + "name,,what the shop calls it,text,\n")
    assert ask("--num_roots", "2", "--budget", "2").returncode == 0
    assert "what the shop calls it" in read(tmp_path / "out" / "candidates.json")[0]["prompt"]
    shutil.rmtree(folder)
    assert ask("--num_roots", "2", "--budget", "2").returncode == 0
    assert "what the shop calls it" not in read(tmp_path / "out" / "candidates.json")[0]["prompt"]


def test_queries_are_ranked_by_what_came_of_them_then_by_reward():
    def node(sql: str, outcome: str, reward: float | None) -> dict:
        return {"generated_sql": sql, "outcome": outcome, "reward": reward, "execution_feedback": f"said\n\n{sql}"}

    nodes = [node("A", "error", 9.0), node("B", "ok", -1.0), node("", "no_sql", None), node("C", "empty", 3.0)]
    nodes += [node("D", "ok", 0.5), node("B", "ok", -1.0), node("E", "timeout", 9.5)]
    assert [(one["generated_sql"], times) for one, times in ranked(nodes)] == [
        *(("D", 1), ("B", 2), ("C", 1), ("E", 1), ("A", 1))
    ]
    text = ranking({"question": "Which?", "chosen": "B", "search": nodes})
    assert (
        "Which?\n\n7 queries, 5 different ones, the best first:\n\n1. reward 0.500, ok, written once\n    D\n" in text
    )
    assert "\n2. reward -1.000, ok, written 2 times, the answer\n    B\n    > said\n    > \n    > B\n" in text
    nothing = ranking({"question": "Which?", "chosen": "", "search": [node("", "no_sql", None)]})
    assert nothing == "Which?\n\nno reply of 1 holds a query"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--database", "nowhere.sqlite"), ("--database nowhere.sqlite: no such file",)),
        (("--database", __file__), ("not a SQLite database",)),
        (("--question", " "), ("--question: is empty",)),
        (("--adapter", "nowhere"), ("nowhere: no such adapter folder",)),
        (("--budget", "1"), ("--budget 1",)),
        (("--output_dir", "/proc/nowhere"), ("/proc/nowhere", "cannot be written")),
    ],
)
def test_bad_input_is_one_line(ask, tmp_path, flags, words):
    run = ask(*flags)
    assert_one_line_error(run, *words)
    assert "starting the engine" not in run.stdout
    assert not list((tmp_path / "out").glob("candidates.json"))


def test_an_unknown_flag_and_a_question_that_cannot_be_answered(ask, monkeypatch):
    run = ask("--no_such_flag")
    assert run.returncode == 2 and "unrecognized arguments: --no_such_flag" in run.stderr
    monkeypatch.setenv("FAIL_ON", QUESTION)
    run = ask(generator=FaultyGenerator)
    assert "failed 2 times" in run.stdout
    assert_one_line_error(run, "every question failed")


def test_a_folder_of_another_run_is_left_alone(ask, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    assert_one_line_error(ask(), "out: holds another run; give another --output_dir")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_what_is_written_is_taken_by_evaluation(ask, place, tiny_model, adapter, tmp_path):
    assert ask("--num_roots", "3", "--budget", "3").returncode == 0
    out = tmp_path / "out"
    run = run_main(
        *("evaluate", "--base_model", tiny_model, "--adapters", adapter, "--candidates", out / "candidates.json"),
        *("--db_root", out / "databases", "--predictions", tmp_path / "predictions.json"),
        *("--output_file", tmp_path / "report.json"),
    )
    assert run.returncode == 0, run.stderr
    assert list(json.loads((tmp_path / "predictions.json").read_text())) == ["0"]
