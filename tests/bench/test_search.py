"""Searches by reward beside independent drafts: runs written by hand, with figures known beforehand, and real files."""

import json
import re
from types import SimpleNamespace

import pytest

from common.files import write_json
from tests import fake_search
from tests.bench.conftest import promises
from tests.conftest import assert_one_line_error, run_main

WRONG, BROKEN = "SELECT 1", "SELECT nothing FROM nowhere"


def write_draws(path, questions: list[dict], draws_of) -> None:
    """A candidates.json of (query, depth, reward, tokens) for each question."""
    names = ("generated_sql", "d", "reward", "tokens")
    rows = [
        {name: question[name] for name in ("question_id", "db_id", "question")}
        | {"search": [dict(zip(names, draw, strict=True)) for draw in draws_of(question)]}
        for question in questions
    ]
    path.parent.mkdir(exist_ok=True)
    write_json(path, rows)


@pytest.fixture
def compare(dataset, tmp_path):
    """Compares runs of `questions` with gold; an even one has its 20th draft right. `change` is made in the search.

    The search has its ninth query right, whose reward is the highest, and draws four revisions after eight drafts.
    """
    questions = json.loads(dataset.read_text())

    def draft(question: dict, number: int) -> tuple:
        right = number == 20 and question["question_id"] % 2 == 0
        return (question["SQL"], 1, 5.0, 10) if right else ("", 1, None, 10) if number == 1 else (WRONG, 1, 0, 10)

    def drafts(question: dict) -> list[tuple]:
        return [draft(question, number) for number in range(24)]

    def searched(question: dict) -> list[tuple]:
        return [*drafts(question)[:8], (question["SQL"], 2, 5.0, 40), *[(BROKEN, 2, 0.0, 40)] * 3]

    def run(best_of=drafts, search=searched, in_search=questions, gold=lambda question: question["SQL"]):
        write_json(dataset, [question | {"SQL": gold(question)} for question in questions])
        files = [tmp_path / name / "candidates.json" for name in ("best_of_24", "search")]
        write_draws(files[0], questions, best_of)
        write_draws(files[1], in_search, search)
        places = ("--data", dataset, "--db_root", dataset.parent / "databases", "--sql_workers", "1")
        return run_main("bench.search", "--best_of", files[0], "--search", files[1], *places)

    return SimpleNamespace(run=run, drafts=drafts, searched=searched, questions=questions)


def table_of(printed: str, title: str) -> dict[str, dict[str, float]]:
    """The figures of a table by the first cell of their row, without intervals."""
    head, *rows = printed.split(f"{title}\n")[1].split("\n\n")[0].splitlines()
    figures = [re.sub(r" \[.*?\]", "", row).split() for row in rows]
    names = re.split(r" {2,}", head)
    return {row[0]: dict(zip(names, map(float, row), strict=True)) for row in figures}


def test_search_and_drafts_are_compared_in_the_order_in_which_they_were_drawn(compare):
    run = compare.run()
    assert re.search(r"^search: .*best_of_24/manifest.json is not there; compare runs of one", run.stdout, re.MULTILINE)
    found = promises(run)
    assert set(found) == {"search_minus_best_of_16", "search_minus_best_of_24"}
    assert found["search_minus_best_of_16"] > 0 > found["search_minus_best_of_24"]
    drafts = table_of(run.stdout, "best_of_24: EX [95 %] after the first k queries")
    search = table_of(run.stdout, "search: EX [95 %] after the first k queries")
    by_reward = ("reward_vote", "executes_reward", "reward", "oracle")
    for name in by_reward:
        assert [row[name] for row in drafts.values()] == [0, 0, 0, 0.5]
        assert [row[name] for row in search.values()] == [0, 0, 1, 1]
    assert all(row["majority_vote"] == row["executes_vote"] == 0 for row in (*drafts.values(), *search.values()))
    assert [row["tokens"] for row in drafts.values()] == [40, 80, 160, 240]
    assert [(row["queries"], row["tokens"]) for row in search.values()] == [(4, 40), (8, 80), (12, 240), (12, 240)]
    as_queries = table_of(run.stdout, "search minus best_of_24 [95 %], after as many queries")
    as_tokens = table_of(run.stdout, "search minus best_of_24 [95 %], after as many tokens")
    assert [row["reward"] for row in as_queries.values()] == [0, 0, 1, 0.5]
    assert [row["reward"] for row in as_tokens.values()] == [0, 0, 0.5, 0.5]
    assert [row["drafts"] for row in as_tokens.values()] == [4, 8, 24, 24]


def test_questions_that_a_run_lacks_or_whose_gold_fails_are_left_out(compare):
    run = compare.run(
        in_search=compare.questions[1:],
        gold=lambda question: BROKEN if question["question_id"] == 1 else question["SQL"],
    )
    assert len(promises(run)) == 2 and "4 questions with gold that runs" in run.stdout
    assert re.search(r"left out: 1 questions of .*best_of_24/candidates.json that another run lacks", run.stdout)
    assert "left out: 1 questions whose gold does not run" in run.stdout


def test_drafts_bound_after_how_many_queries_is_compared(compare):
    run = compare.run(best_of=lambda question: compare.drafts(question)[:16])
    assert set(promises(run)) == {"search_minus_best_of_16"}
    assert_one_line_error(compare.run(best_of=lambda question: compare.drafts(question)[:3]), "3 drafts", "4 or more")


def test_runs_that_cannot_be_compared_are_refused(compare, tmp_path):
    assert_one_line_error(compare.run(best_of=compare.searched), "--best_of", "holds revisions")
    assert_one_line_error(compare.run(in_search=compare.questions[:1]), "1 questions are in every file")
    other = [question | {"question": "Which?"} for question in compare.questions]
    assert_one_line_error(
        compare.run(in_search=other), "search/candidates.json: row 0: question_id 0 is another question"
    )
    assert_one_line_error(compare.run(gold=lambda question: BROKEN), "gold of fewer than 2")
    for name in ("best_of_24", "search"):
        write_json(tmp_path / name / "manifest.json", {"arguments": 3})
    assert_one_line_error(compare.run(), "search/manifest.json: not the manifest of a search")
    untold = [(WRONG, 1, 0.0, None)]
    assert_one_line_error(compare.run(search=lambda _: untold), "row 0: search: row 0: 'tokens' is null")
    same = run_main("bench.search", "--best_of", "a/search/candidates.json", "--search", "b/search/candidates.json")
    assert_one_line_error(same, "folders of different names")


def test_what_a_search_writes_is_compared(dataset, tiny_model, adapter, tmp_path, monkeypatch):
    """After no more queries than both drew as drafts they are the same."""
    fake_search.pretend(monkeypatch.setattr)
    places = ("--data", dataset, "--db_root", dataset.parent / "databases")
    models = ("--model", tiny_model, "--base_model", tiny_model, "--adapter", adapter)
    for name, drafts in (("best_of_24", 24), ("search", 8)):
        flags = ("--num_roots", drafts, "--budget", 24, "--output_dir", tmp_path / name)
        assert run_main("tree.search", *places, *models, *flags).returncode == 0
    files = [tmp_path / name / "candidates.json" for name in ("best_of_24", "search")]
    run = run_main("bench.search", "--best_of", files[0], "--search", files[1], *places)
    assert "search differs from best_of_24 in num_roots: 24 -> 8\n" in run.stdout
    assert set(promises(run)) == {"search_minus_best_of_16", "search_minus_best_of_24"}
    table = table_of(run.stdout, "search minus best_of_24 [95 %], after as many queries")
    assert all(table[size][name] == 0 for size in "48" for name in ("reward_vote", "majority_vote", "oracle"))
    assert table["4"]["tokens"] == table["4"]["their tokens"] == 40
