"""The benches run and print their promises; what they measure is not judged here."""

import json
import re

import pytest

from tests.conftest import assert_one_line_error, run_script
from tree.files import write_json
from tree.prompts import REVISIONS
from tree.questions import limited, load_questions
from tree.tree_node import INITIAL, RevisionTree, tree_to_json


def promises(run) -> dict[str, float]:
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith("PROMISE")]
    found = [re.fullmatch(r"PROMISE (\w+) (-?[\d.]+) GOAL [<>]=? [\d.]+", line).groups() for line in lines]
    return {name: float(value) for name, value in found}


def test_sql_execution(tmp_path):
    assert run_script("data/build_demo.py", "--output_dir", tmp_path / "demo").returncode == 0
    data = ("--data", tmp_path / "demo" / "train.json", "--db_root", tmp_path / "demo" / "train_databases")
    few = ("--candidates", "60", "--common", "16", "--rounds", "1")
    assert set(promises(run_script("bench/sql_execution.py", *data, *few))) == {
        "sql_overhead_us",
        "sql_two_workers",
        "sql_common_way_speedup",
    }


def test_too_few_candidates_are_an_error(tmp_path):
    assert run_script("data/build_demo.py", "--output_dir", tmp_path / "demo").returncode == 0
    data = ("--data", tmp_path / "demo" / "train.json", "--db_root", tmp_path / "demo" / "train_databases")
    run = run_script("bench/sql_execution.py", *data, "--candidates", "5", "--common", "16")
    assert run.returncode == 2 and "quick candidates" in run.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The flags of the bundled demo, with ids."""
    folder = tmp_path_factory.mktemp("demo")
    assert run_script("data/build_demo.py", "--output_dir", folder).returncode == 0
    assert run_script("add_question_id.py", "--file", folder / "train.json").returncode == 0
    return "--data", folder / "train.json", "--db_root", folder / "train_databases"


def test_tree_growth(demo, tiny_generator):
    few = ("--questions", "4", "--many", "8", "--common", "1", "--per_database", "2", "--max_tokens", "12")
    assert set(promises(run_script("bench/tree_growth.py", "--model", tiny_generator, *demo, *few))) == {
        "growth_of_the_limit",
        "growth_common_way_speedup",
        "growth_linear_percent",
        "growth_memory_mb",
    }


def test_scale_simulation(demo):
    few = ("--seeds", "1", "--start", "5")
    run = run_script("bench/scale_simulation.py", *demo[:2], *few)
    assert set(promises(run)) == {"scale_efficiency_8_gpus", "scale_static_over_default_64_gpus"}
    assert re.search(r"\nuneven: .*\n\| GPUs \| static \| default \|", run.stdout)
    assert_one_line_error(run_script("bench/scale_simulation.py", *demo[:2], "--pass_at_4", "0.99"), "--pass_at_4 0.99")


def test_revision_yield(demo, tiny_generator):
    few = ("--questions", "4", "--per_database", "2", "--nodes", "4", "--max_tokens", "12")
    run = run_script("bench/revision_yield.py", "--model", tiny_generator, *demo, *few)
    assert set(promises(run)) == {"revision_yield_of_fresh"}
    assert all(f"\n{revision} " in run.stdout for revision in REVISIONS)


def test_prompt_formats(demo, tiny_generator, tmp_path):
    """One way is run, the runs of the others are there."""
    questions = limited(load_questions(demo[1]), 4)
    for way in ("ddl_values", "mschema_bare", "mschema_values"):
        run_folder = tmp_path / f"{demo[1].parent.name}_{way}" / "tree_dataset" / "part0" / "20260101_120000"
        trees = [RevisionTree(question, "the task") for question in questions]
        for tree in trees:
            query = {"generated_sql": "SELECT 1", "execution_feedback": "", "outcome": "ok"}
            tree.add(INITIAL, **query, is_correct=way == "mschema_values", strict_match=True, flags=["fragile"])
        write_json(run_folder / "all_trees.json", [tree_to_json(tree) for tree in trees])
        write_json(run_folder / "manifest.json", {})
    few = ("--questions", "4", "--samples", "2", "--output", tmp_path)
    run = run_script("bench/prompt_formats.py", "--model", tiny_generator, *demo, *few)
    assert run.returncode == 0, run.stderr
    rows = {
        match.group(1): [float(number) for number in match.group(2).split()]
        for match in re.finditer(
            r"^(ddl|ddl without values|mschema|mschema without values) +([\d. ]+)", run.stdout, re.M
        )
    }
    assert list(rows) == ["ddl without values", "ddl", "mschema without values", "mschema"]
    assert rows["mschema"][:5] == [4, 1, 1, 0, 1] and rows["mschema without values"][:5] == [4, 0, 0, 0, 0]


def test_verification(demo):
    run = run_script("bench/verification.py", *demo, "--nodes", "300", "--rounds", "1")
    assert set(promises(run)) == {"verification_over_bare_execution"}


@pytest.fixture
def rich_pairs(tmp_path):
    """A pair file of three questions with nine candidates each."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Question {question}: how many products?"}],
            "chosen": [{"role": "assistant", "content": "SELECT COUNT(*) FROM product"}],
            "rejected": [{"role": "assistant", "content": f"SELECT {number} FROM product"}],
        }
        for question in range(3)
        for number in range(8)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    return tmp_path / "pairs.json"


def test_reward_training(rich_pairs, tiny_model):
    few = ("--model", tiny_model, "--data", rich_pairs, "--questions", "2", "--rounds", "1")
    assert set(promises(run_script("bench/reward_training.py", *few))) == {
        "packed_training_tokens",
        "packed_training_speedup",
        "packed_memory_linear",
    }


def test_reward_scoring(rich_pairs, tiny_model):
    few = ("--model", tiny_model, "--data", rich_pairs, "--questions", "2", "--rounds", "1")
    found = promises(run_script("bench/reward_scoring.py", *few))
    assert set(found) == {"packed_scoring_speedup", "packed_scoring_difference"}
    assert found["packed_scoring_difference"] <= 1e-4
    run = run_script("bench/reward_scoring.py", *few, "--questions", "4")
    assert run.returncode == 2 and "only 3 questions" in run.stderr


def test_packed_attention(rich_pairs, tiny_model):
    few = ("--model", tiny_model, "--data", rich_pairs, "--rounds", "1", "--questions")
    found = promises(run_script("bench/packed_attention.py", *few, "1", "3"))
    assert set(found) == {"packed_attention_speedup_1_questions", "packed_attention_speedup_3_questions"}
    assert_one_line_error(run_script("bench/packed_attention.py", *few, "4"), "--questions 4", "3")


def test_reward_precision(rich_pairs, tiny_model):
    run = run_script("bench/reward_precision.py", "--model", tiny_model, "--adapter", "none", "--data", rich_pairs)
    found = promises(run)
    assert set(found) == {"bfloat16_pairs_changed", "bfloat16_best_candidate_changed", "bfloat16_speedup"}
    assert 0 <= found["bfloat16_pairs_changed"] <= 1 and "float32: pairwise accuracy" in run.stdout


def test_learning_curve(dataset, tiny_model, tmp_path):
    """Trained on the trees of one database, evaluated on those of another."""
    files = {}
    for db_id in ("shop", "store"):
        trees = [RevisionTree(question, "the task") for question in load_questions(dataset) if question.db_id == db_id]
        for number, tree in enumerate(trees):
            tree.prompt += f" {db_id} {number}"
            for sql in (tree.question.sql, "SELECT 1", "SELECT 2 FROM nowhere"):
                right, outcome = sql == tree.question.sql, "error" if "nowhere" in sql else "ok"
                query = {"generated_sql": sql, "execution_feedback": "", "outcome": outcome}
                tree.add(INITIAL, **query, is_correct=right, strict_match=right)
        files[db_id] = tmp_path / f"{db_id}.json"
        write_json(files[db_id], [tree_to_json(tree) for tree in trees])
    places = ("--db_root", dataset.parent / "databases", "--output_dir", tmp_path / "curve")
    trees = ("--train_trees", files["shop"], "--test_trees", files["store"], "--sizes", "2", "9")
    flags = ("--", "--max_steps", "1", "--validation_fraction", "0")
    run = run_script("bench/learning_curve.py", "--model", tiny_model, *trees, *places, *flags)
    ways = [
        f"{way}_over_{what}_low"
        for way in ("reward", "executes_reward", "reward_vote")
        for what in ("majority_vote", "executes_vote", "first")
    ]
    assert set(promises(run)) == {"learned_pairwise_accuracy", *ways}
    assert "log-probability per token" in run.stdout and (tmp_path / "curve" / "3" / "manifest.json").is_file()
