"""evaluate.py on candidates, as a user runs it, with a tiny reward model and real SQL."""

import asyncio
import json
from collections import Counter

import pytest

from common.trained_on import write_trained_on
from eval.best_of_n import WITH_REWARD, WITHOUT_REWARD, accuracy, choice
from eval.candidates import CandidatePool, PoolResults, as_candidates, execute, read_pools
from tests.builders import random_adapter
from tests.conftest import QUESTIONS, assert_one_line_error, run_main
from tree.run.prompt_settings import PromptSettings
from tree.sql_utils import SqlSettings
from tree.tree_node import Question

WRONG = ["SELECT name FROM product WHERE id = 2", "SELECT nothing FROM nowhere", "SELECT id FROM product WHERE id > 9"]


@pytest.fixture
def listed(dataset, tmp_path):
    """A candidate list: of each question the gold query twice, in two forms, and three wrong ones; one has none."""
    rows = json.loads(dataset.read_text())
    for row in rows:
        row["candidates"] = [WRONG[0], row["SQL"], f"SELECT * FROM ({row['SQL']})", WRONG[1], WRONG[2], ""]
    rows[-1]["candidates"] = []
    path = tmp_path / "candidates.json"
    path.write_text(json.dumps(rows))
    return path


def evaluate(listed, base, *flags):
    return run_main(
        *("evaluate", "--base_model", base, "--adapters", "none", "--candidates", listed, "--batch_size", "5"),
        *("--dtype", "float32"),  # in which no score depends on the batch
        *("--db_root", listed.parent / "databases", "--output_file", listed.parent / "report.json", *flags),
    )


def figures(path) -> dict:
    ways = json.loads(path.read_text())["choice"]["ways"]
    return {way["choose"]: {size: figure["value"] for size, figure in way["ex"].items()} for way in ways}


def test_accuracy_of_choices_and_predictions_in_birds_format(listed, tiny_model, dataset):
    predictions = listed.parent / "predict.json"
    run = evaluate(listed, tiny_model, "--predictions", predictions, "--choose", "majority_vote")
    assert run.returncode == 0, run.stderr
    found = figures(listed.parent / "report.json")
    # five of six questions have six candidates, of which two are right; the last one has none
    assert found["random"]["1"] == pytest.approx(5 / 6 * 2 / 6)
    assert found["oracle"]["6"] == found["majority_vote"]["6"] == pytest.approx(5 / 6)
    for suffix, start in ((".md", b"# Evaluation"), (".png", b"\x89PNG")):
        assert (listed.parent / "report").with_suffix(suffix).read_bytes().startswith(start)
    assert "majority_vote" in run.stdout

    chosen = json.loads(predictions.read_text())
    assert chosen["0"] == QUESTIONS[0][1] + "\t----- bird -----\tshop" and chosen["5"].startswith("\t-----")
    judged = run_main(
        *("eval.execution_accuracy", "--predictions", predictions, "--questions", dataset),
        *("--db_root", listed.parent / "databases", "--output", listed.parent / "ex.json"),
    )
    assert judged.returncode == 0, judged.stderr
    assert json.loads((listed.parent / "ex.json").read_text())["totals"]["ex"]["count"] == 5


def test_without_gold_there_are_predictions_but_no_accuracy(listed, tiny_model):
    rows = [{key: value for key, value in row.items() if key != "SQL"} for row in json.loads(listed.read_text())]
    listed.write_text(json.dumps(rows))
    predictions = listed.parent / "predict.json"
    run = evaluate(listed, tiny_model, "--predictions", predictions, "--choose", "executes_reward")
    assert run.returncode == 0, run.stderr
    report = json.loads((listed.parent / "report.json").read_text())
    assert report["choice"] is None and "no accuracy" in run.stdout
    best = [max(one["candidates"], key=lambda sql: sql["rewards"].get("none", -9)) for one in report["candidates"][:5]]
    ran = [sql for sql in best if sql["outcome"] == "ok"]
    assert all(sql["is_correct"] is None for sql in best)
    chosen = [sql.split("\t")[0] for sql in json.loads(predictions.read_text()).values()]
    assert all(sql not in WRONG[1:] for sql in chosen)  # those that return rows come first
    assert {sql["SQL"] for sql in ran} <= set(chosen)


def test_several_adapters_are_judged_and_choose_by_the_mean_of_their_rewards(listed, tiny_model, adapter, tmp_path):
    other = random_adapter(tmp_path / "other", tiny_model, result_length=0, seed=1)
    predictions = listed.parent / "predict.json"
    flags = ("--adapters", adapter, other, "none", "--predictions", predictions, "--choose", "reward")
    run = evaluate(listed, tiny_model, *flags)
    assert run.returncode == 0, run.stderr
    report = json.loads((listed.parent / "report.json").read_text())
    assert {way["adapter"] for way in report["choice"]["ways"]} == {"", str(adapter), str(other), "none", "mean of 2"}
    chosen = [sql.split("\t")[0] for sql in json.loads(predictions.read_text()).values()]
    for row, answer in zip(report["candidates"][:5], chosen, strict=False):
        scored = [one for one in row["candidates"] if one["SQL"]]
        for rewards in (one["rewards"] for one in scored):
            assert rewards["mean of 2"] == pytest.approx((rewards[str(adapter)] + rewards[str(other)]) / 2, abs=2e-6)
        assert answer == max(scored, key=lambda one: one["rewards"]["mean of 2"])["SQL"]

    # behind other prompts the same query is another one
    write_trained_on(other, [], {}, vars(PromptSettings(no_values=True)))
    assert_one_line_error(evaluate(listed, tiny_model, *flags), "--predictions", "no mean")
    assert evaluate(listed, tiny_model, *flags[:4]).returncode == 0
    assert "mean of" not in (listed.parent / "report.json").read_text()


def test_gold_that_fails_judges_nothing_whatever_the_candidates(listed, tiny_model):
    """Beside questions whose candidates are none, empty or wrong: they count just where there is gold that runs."""
    fails, runs = ("SELECT nothing FROM nowhere", "SELECT 1 WHERE 0"), ("", QUESTIONS[0][1])
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    cases = [
        *((gold, candidates) for gold in (fails[0], endless) for candidates in ([], [""], [runs[1]])),
        *((fails[1], candidates) for candidates in ([], [""], ["SELECT 2 WHERE 0"])),  # no rows: gold that runs
        *((runs[1], candidates) for candidates in ([], ["", ""], [runs[1]])),
        *((runs[0], candidates) for candidates in ([""], [runs[1]])),
    ]
    rows = [
        {"question_id": number, "db_id": "shop", "question": "?", "SQL": gold, "candidates": candidates}
        for number, (gold, candidates) in enumerate(cases)
    ]
    listed.write_text(json.dumps(rows))
    run = evaluate(listed, tiny_model, "--sql_timeout", "1", "--sql_workers", "1")
    assert run.returncode == 0, run.stderr
    left_out = [line for line in run.stdout.splitlines() if line.startswith("left out")]
    assert len(left_out) == 6
    assert all(f"question {number} (shop)" in line for number, line in enumerate(left_out))
    assert "gold fails: error" in left_out[0] and "gold fails: timeout" in left_out[3]
    report = json.loads((listed.parent / "report.json").read_text())
    assert report["choice"]["questions"] == 6
    assert {way["choose"]: way["ex"]["1"]["value"] for way in report["choice"]["ways"]}["oracle"] == pytest.approx(
        2 / 6
    )
    right = [[sql["is_correct"] for sql in row["candidates"]] for row in report["candidates"]]
    assert right == [[], [None], [None]] * 2 + [[], [None], [True], [], [None] * 2, [True], [None], [None]]


def test_questions_with_gold_and_no_candidate_at_all_are_wrong(listed, tiny_model):
    rows = json.loads(listed.read_text())
    for row in rows[1:]:
        row["candidates"] = []
    rows[0] |= {"SQL": "", "candidates": [""]}
    listed.write_text(json.dumps(rows))
    run = evaluate(listed, tiny_model)
    assert run.returncode == 0, run.stderr
    choice_report = json.loads((listed.parent / "report.json").read_text())["choice"]
    assert choice_report["questions"] == 5 and choice_report["sizes"] == [1]
    assert all(way["ex"]["1"]["value"] == 0 for way in choice_report["ways"])


def test_first_attempts_of_trees_are_the_candidates(tmp_path):
    node = {"parent_id": "node_initial", "d": 1, "generated_sql": "SELECT 1", "is_correct": False, "children_ids": []}
    nodes = {
        "node_1_0": node | {"j": 0, "children_ids": ["node_2_0"]},
        "node_1_1": node | {"j": 1, "generated_sql": "SELECT 2", "is_correct": True},
        "node_1_2": node | {"j": 2},
        "node_2_0": node | {"j": 0, "d": 2, "parent_id": "node_1_0", "generated_sql": "SELECT 3"},
    }
    initial = {"input_seq": "the prompt"}
    tree = {
        "question_id": 7,
        "db_id": "shop",
        "question": "?",
        "SQL": "SELECT 2",
        "node_initial": initial,
        "nodes": nodes,
    }
    (tmp_path / "all_trees.json").write_text(json.dumps([tree]))
    (one,) = read_pools(str(tmp_path / "all_trees.json"))
    assert (one.prompt, one.queries, one.question.sql) == (
        "the prompt",
        ["SELECT 1", "SELECT 2", "SELECT 1"],
        "SELECT 2",
    )
    assert Counter(one.distinct) == Counter(["SELECT 1", "SELECT 2"])


def test_equal_results_are_one_group_whatever_the_query(listed, tmp_path):
    pools = read_pools(str(listed))
    executed = asyncio.run(execute(pools, str(tmp_path / "databases"), SqlSettings(1, 10.0)))
    for pool, found in zip(pools[:5], executed, strict=False):
        candidates = as_candidates(pool, found)
        assert candidates.groups[1] == candidates.groups[2] != candidates.groups[0]
        assert candidates.correct.tolist() == [0, 1, 1, 0, 0, 0]
        assert candidates.tiers.tolist() == [2, 2, 2, 0, 1, 0]


def test_null_and_nan_are_as_missing_and_lines_are_a_list(tmp_path):
    row = {"question_id": 3, "db_id": "shop", "question": "How many?", "candidates": ["SELECT 1"]}
    empty = row | dict.fromkeys(("evidence", "SQL", "difficulty", "prompt"), float("nan")) | {"question_id": 4.0}
    path = tmp_path / "candidates.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(empty)}\n")
    asked = read_pools(str(path))
    assert [repr(one.question.question_id) for one in asked] == ["3", "4"]
    assert {(one.question.evidence, one.question.sql, one.question.difficulty, one.prompt) for one in asked} == {
        ("",) * 4
    }


def test_a_question_with_replies_but_no_query_is_wrong_whatever_is_chosen():
    pool = CandidatePool(Question(0, "shop", "?", "", "SELECT 1"), "prompt", ["", ""])
    candidates = as_candidates(pool, PoolResults({}, "ok"), {})
    for rule in (WITH_REWARD | WITHOUT_REWARD).values():
        assert accuracy(candidates, rule, 2) == 0 and choice(candidates, rule) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[1].pop("candidates"), ("row 1", "candidates")),
        (lambda rows: rows[1].update(candidates=[1]), ("row 1", "SQL texts")),
        (lambda rows: rows[1].update(question_id=0), ("row 1", "is duplicated")),
        (lambda rows: rows[1].update(evidence=3), ("row 1", "evidence")),
        (lambda rows: rows[1].update(question_id=[1]), ("row 1", "question_id")),
        (lambda rows: rows[1].update(prompt=["half"]), ("row 1", "prompt")),
    ],
)
def test_bad_candidates_are_refused_in_one_line(listed, tiny_model, change, words):
    rows = json.loads(listed.read_text())
    change(rows)
    listed.write_text(json.dumps(rows))
    assert_one_line_error(evaluate(listed, tiny_model), *words)
    assert not (listed.parent / "report.json").exists()


def test_bad_flags_are_refused_in_one_line(listed, tiny_model):
    without = ("evaluate", "--base_model", tiny_model, "--adapters", "none", "--predictions", "p.json")
    assert_one_line_error(run_main(*without), "--predictions needs --candidates")
    assert_one_line_error(evaluate(listed, tiny_model, "--output_file", "report.txt"), "must end in .json")
    for flag in ("--output_file", "--predictions"):  # before anything is executed or scored
        run = evaluate(listed, tiny_model, flag, "/proc/nowhere.json")
        assert_one_line_error(run, "/proc/nowhere.json", "cannot be written")
        assert "candidate" not in run.stdout + run.stderr
    assert_one_line_error(evaluate(listed, tiny_model, "--sql_timeout", "0"), "--sql_timeout")
