"""The benches run and print their promises; what they measure is not judged here."""

import json
import re
import sys
from types import SimpleNamespace

import pytest

from bench import gpu_check, packed_attention
from common.files import write_json
from tests.bench.conftest import promises
from tests.builders import train
from tests.conftest import assert_one_line_error, run_main, run_script
from tree.prompts import REVISIONS
from tree.questions import limited, load_questions
from tree.tree_node import INITIAL, RevisionTree, tree_to_json


def test_sql_execution(tmp_path):
    assert run_script("data/build_demo.py", "--output_dir", tmp_path / "demo").returncode == 0
    data = ("--data", tmp_path / "demo" / "train.json", "--db_root", tmp_path / "demo" / "train_databases")
    few = ("--candidates", "60", "--round_size", "20", "--common", "16", "--common_rounds", "1")
    assert set(promises(run_script("-m", "bench.sql_execution", *data, *few))) == {
        "sql_overhead_us",
        "sql_two_workers",
        "sql_common_way_speedup",
    }


def test_too_few_candidates_are_an_error(tmp_path):
    assert run_script("data/build_demo.py", "--output_dir", tmp_path / "demo").returncode == 0
    data = ("--data", tmp_path / "demo" / "train.json", "--db_root", tmp_path / "demo" / "train_databases")
    run = run_script("-m", "bench.sql_execution", *data, "--candidates", "5", "--common", "16")
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
    assert set(promises(run_script("-m", "bench.tree_growth", "--model", tiny_generator, *demo, *few))) == {
        "growth_of_the_limit",
        "growth_common_way_speedup",
        "growth_linear_percent",
        "growth_memory_mb",
    }


def test_interval_coverage():
    found = promises(run_script("-m", "bench.interval_coverage", "--samples", "4"))
    assert len(found) == 12 and 0.8 < found["coverage_accuracy_10_questions"] <= 1


def test_scale_simulation(demo):
    few = ("--seeds", "1", "--start", "5")
    run = run_script("-m", "bench.scale_simulation", *demo[:2], *few)
    assert set(promises(run)) == {"scale_efficiency_8_gpus", "scale_static_over_default_64_gpus"}
    assert re.search(r"\nuneven: .*\n\| GPUs \| static \| default \|", run.stdout)
    assert_one_line_error(
        run_script("-m", "bench.scale_simulation", *demo[:2], "--pass_at_4", "0.99"), "--pass_at_4 0.99"
    )


def test_revision_yield(demo, tiny_generator):
    few = ("--questions", "4", "--per_database", "2", "--nodes", "4", "--max_tokens", "12")
    run = run_script("-m", "bench.revision_yield", "--model", tiny_generator, *demo, *few)
    assert set(promises(run)) == {"revision_yield_of_samples"}
    assert all(f"\n{revision} " in run.stdout for revision in REVISIONS)


def test_prompt_formats(dataset, tiny_model, tmp_path, monkeypatch):
    """One way is run, with a fake generator; the runs of the others are there."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\nexec {sys.executable} "${{@/tree.run_pipeline/tests.fake_worker}}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    questions = limited(load_questions(dataset), 4)
    for way in ("ddl_values", "mschema_bare", "mschema_values"):
        run_folder = tmp_path / f"{dataset.parent.name}_{way}" / "tree_dataset" / "part0" / "20260101_120000"
        trees = [RevisionTree(question, "the task") for question in questions]
        for tree in trees:
            query = {"generated_sql": "SELECT 1", "execution_feedback": "", "outcome": "ok"}
            tree.add(INITIAL, **query, is_correct=way == "mschema_values", strict_match=True, flags=["fragile"])
        write_json(run_folder / "all_trees.json", [tree_to_json(tree) for tree in trees])
        write_json(run_folder / "manifest.json", {})
    data = ("--data", dataset, "--db_root", dataset.parent / "databases", "--model", tiny_model)
    run = run_main("bench.prompt_formats", *data, "--questions", "4", "--samples", "2", "--output", tmp_path)
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
    run = run_script("-m", "bench.verification", *demo, "--nodes", "300", "--rounds", "1")
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
    assert set(promises(run_script("-m", "bench.reward_training", *few))) == {
        "packed_training_tokens",
        "packed_training_speedup",
        "packed_memory_linear",
    }


def test_reward_scoring(rich_pairs, tiny_model):
    few = ("--model", tiny_model, "--data", rich_pairs, "--questions", "2", "--rounds", "1")
    found = promises(run_main("bench.reward_scoring", *few))
    assert set(found) == {"packed_scoring_speedup", "packed_scoring_difference"}
    assert found["packed_scoring_difference"] <= 1e-4
    run = run_main("bench.reward_scoring", *few, "--questions", "4")
    assert run.returncode == 2 and "only 3 questions" in run.stderr


def test_packed_attention(rich_pairs, tiny_model):
    few = ("--model", tiny_model, "--data", rich_pairs, "--rounds", "1", "--questions")
    found = promises(run_main("bench.packed_attention", *few, "1", "3"))
    assert set(found) == {"packed_attention_speedup_1_questions", "packed_attention_speedup_3_questions"}
    assert_one_line_error(run_main("bench.packed_attention", *few, "4"), "--questions 4", "3")


def test_reward_precision(rich_pairs, tiny_model):
    way = ("--compare", "precision", "--adapter", "none")
    run = run_main("bench.reward_scoring", *way, "--model", tiny_model, "--data", rich_pairs)
    found = promises(run)
    assert set(found) == {"bfloat16_pairs_changed", "bfloat16_best_candidate_changed", "bfloat16_speedup"}
    assert 0 <= found["bfloat16_pairs_changed"] <= 1 and "float32: pairwise accuracy" in run.stdout


def test_scoring_beside_vllm(rich_pairs, tiny_generator, tmp_path):
    """vLLM serves the exported model, with the same rewards."""
    assert train(tmp_path, tiny_generator, "--result_length", "0").returncode == 0
    few = ("--model", tiny_generator, "--data", rich_pairs, "--questions", "2", "--rounds", "1")
    vllm = ("--compare", "vllm", "--adapter", tmp_path / "adapter")
    found = promises(run_script("-m", "bench.reward_scoring", *vllm, *few, VLLM_CPU_KVCACHE_SPACE="1"))
    assert set(found) == {"packed_scoring_over_vllm", "packed_scoring_difference_to_vllm"}
    assert found["packed_scoring_difference_to_vllm"] <= 1e-4


def test_learning_curve(dataset, tiny_model, tmp_path):
    """Trained on the trees of one database, evaluated on those of another."""
    files = {}
    for db_id in ("shop", "store"):
        trees = [RevisionTree(question, "the task") for question in load_questions(dataset) if question.db_id == db_id]
        for number, tree in enumerate(trees):
            tree.prompt += f" {db_id} {number}"
            for sql in (tree.question.sql, "SELECT 1", "SELECT 2 FROM nowhere"):
                right, outcome = sql == tree.question.sql, "error" if "nowhere" in sql else "ok"
                query = {"generated_sql": sql, "execution_feedback": "what it said", "outcome": outcome}
                query |= {"tokens": 3, "logprob": -1.0 - right}
                tree.add(INITIAL, **query, is_correct=right, strict_match=right)
        files[db_id] = tmp_path / f"{db_id}.json"
        write_json(files[db_id], [tree_to_json(tree) for tree in trees])
    places = ("--db_root", dataset.parent / "databases", "--output_dir", tmp_path / "curve")
    trees = ("--train_trees", files["shop"], "--test_trees", files["store"], "--sizes", "2", "9")
    flags = ("--", "--max_steps", "1", "--validation_fraction", "0")
    run = run_main("bench.learning_curve", "--model", tiny_model, *trees, *places, *flags)
    ways = [
        f"{way}_over_{what}_low"
        for way in ("reward", "executes_reward", "reward_vote")
        for what in ("majority_vote", "executes_vote", "first")
    ]
    assert set(promises(run)) == {"learned_pairwise_accuracy", *ways}
    assert "log-probability per token" in run.stdout and (tmp_path / "curve" / "3" / "manifest.json").is_file()


# --- the check on a GPU ---------------------------------------------------------------------------------------------


def test_gpu_check_runs_on_a_cpu(tmp_path):
    """All its stages, with a tiny model."""
    run = run_script("bench/gpu_check.sh", SIZE="tiny", OUT=str(tmp_path), WHEELS=str(tmp_path / "none"))
    assert run.returncode == 0, run.stdout + run.stderr
    table = (tmp_path / "gpu_check" / "table.md").read_text()
    assert run.stdout.endswith(table)
    assert re.match(r"\d{4}-\d\d-\d\d, no GPU; .*torch \d.*, trl \d.*\. `SIZE=tiny bash bench/gpu_check.sh`:\n", table)
    values = dict(re.findall(r"^\| (.+?) \| (.+?) \|", table, re.M))
    assert "failed" not in table and "stopped" not in table
    for name in (
        "training step of 16 pairs, packed",
        "training step of 16 pairs, TRL",
        "scoring 16 pairs in float32, packed",
    ):
        assert values[name].endswith(" s") and values[f"{name}: peak memory"].endswith(" MB")
    assert any(name.endswith("tokens, sdpa") for name in values)
    assert float(values["packed_training_tokens"].split()[0]) > 1


def test_gpu_check_refuses_another_size_and_a_folder_without_figures(tmp_path):
    assert_one_line_error(run_script("bench/gpu_check.sh", SIZE="7b", OUT=str(tmp_path)), "SIZE=7b")
    (tmp_path / "2_training.log").write_text("STAGE 2_training: failed after 3 s: out of memory\n")
    assert_one_line_error(run_main("bench.gpu_check", "table", tmp_path), str(tmp_path))


def test_gpu_check_shows_what_a_stopped_stage_measured(tmp_path):
    (tmp_path / "1_prepare.log").write_text("MACHINE a GPU; torch 9\nSTAGE 1_prepare: 9 s\n")
    (tmp_path / "2_training.log").write_text(
        "Loading weights: 100%\rFIGURE step, packed = 1 s\nFIGURE step, packed = 2 s\nFIGURE step, TRL = 12345.6 MB\n"
        "FIGURE step, TR\nSTAGE 2_training: stopped after 210 s\n"
    )
    (tmp_path / "4_attention.log").write_text("FAILED 4 questions, flex_attention: RuntimeError: no | Triton\n")
    run = run_main("bench.gpu_check", "table", tmp_path)
    assert run.returncode == 0 and ", a GPU; torch 9. `bash bench/gpu_check.sh`:" in run.stdout
    assert run.stdout.splitlines()[2:] == [
        "| | median | values |",
        "|---|---|---|",
        "| stage 1_prepare | 9 s |  |",
        "| step, packed | 1.5 s | 2 |",
        "| step, TRL | 12,346 MB | 1 |",
        "| stage 2_training | stopped after 210 s |  |",
        "| 4 questions, flex_attention | failed: RuntimeError: no \\| Triton |  |",
    ]


def test_gpu_check_measures_a_model_and_prompts_of_the_real_size():
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    size = gpu_check.SIZES["1.5b"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **size.config))
    assert sum(weights.numel() for weights in model.parameters()) == 1_543_714_304  # as the 1.5B's card says
    pairs = gpu_check.made_up_pairs(size)
    assert pairs == gpu_check.made_up_pairs(size) and len({pair["db_id"] for pair in pairs}) > 1
    queries: dict[str, set[str]] = {}
    for pair in pairs:
        sides = {side: pair[side][0]["content"] for side in ("prompt", "chosen", "rejected")}
        queries.setdefault(sides["prompt"], set()).update((sides["chosen"], sides["rejected"]))
    assert len(queries) == size.databases * size.questions
    assert all(abs(len(prompt) - 2000) < 100 and len(found) == 9 for prompt, found in queries.items())


def test_attention_that_fails_is_named_and_the_other_measured(monkeypatch, capsys):
    import torch

    def seconds(model, inputs, attention):
        if attention != "sdpa":
            raise RuntimeError("no compiler\nand more lines")
        return 2.0

    monkeypatch.setattr(packed_attention, "seconds", seconds)
    model = SimpleNamespace(device=torch.device("cuda"), zero_grad=lambda: None)
    assert packed_attention.measure(model, {}, "a pass", 2) == {"sdpa": [2.0, 2.0]}
    lines = capsys.readouterr().out.splitlines()
    assert "FAILED a pass, flex_attention: RuntimeError: no compiler" in lines
    assert lines.count("FIGURE a pass, sdpa = 2 s") == 2
