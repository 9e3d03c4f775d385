"""Rewards of a trained adapter: what evaluate.py and the README give, and what cannot be scored."""

import asyncio
import json
import re

import pytest
import torch

from common.files import write_json
from common.preference import answer, read_pairs
from common.trained_on import recorded_result_length
from reward.model import load_reward_model, score
from reward.tokens import encode
from tests.builders import evaluate, evaluation
from tests.conftest import ROOT, address, assert_one_line_error, make_tiny_model, run_main, run_script
from tree.sql_utils import Executor


def test_evaluation_equals_scores_computed_one_by_one(trained, tiny_model):
    run = evaluate(trained, tiny_model, "none", trained / "adapter")
    assert run.returncode == 0, run.stderr
    reports = json.loads((trained / "report.json").read_text())["pairs"]["adapters"]
    pairs = read_pairs(trained / "pairs.json")
    for adapter, report in reports.items():
        model, tokenizer = load_reward_model(tiny_model, None if adapter == "none" else adapter, "float32")
        for pair, margin in zip(pairs, report["margins"], strict=True):
            read = pair.as_read(recorded_result_length(trained / "adapter"))
            sides = encode(tokenizer, pair.prompt, [read.chosen, read.rejected])
            chosen, rejected = (model(input_ids=torch.tensor([ids])).logits.item() for ids in sides)
            assert chosen - rejected == pytest.approx(margin, abs=1e-5)
        expected = sum((margin > 0) + 0.5 * (margin == 0) for margin in report["margins"]) / len(pairs)
        assert report["accuracy"]["value"] == pytest.approx(expected)
        assert sum(group["pairs"] for group in report["by_relation"].values()) == len(pairs)
        assert f"{report['accuracy']['value']:.3f}" in run.stdout
    assert reports["none"]["margins"] != reports[str(trained / "adapter")]["margins"]
    assert recorded_result_length(trained / "adapter") > 0  # so the results were read, by the base beside it too


def test_candidates_are_scored_with_what_executing_them_says(trained, tiny_model, dataset, tmp_path):
    """As much of it as the adapter was trained with, whatever the list of candidates says."""
    queries = ["SELECT COUNT(*) FROM product", "SELECT name FROM nowhere", ""]
    rows = [row | {"candidates": queries, "prompt": "the task"} for row in json.loads(dataset.read_text())[:1]]
    write_json(tmp_path / "candidates.json", rows)
    flags = ("--candidates", tmp_path / "candidates.json", "--db_root", tmp_path / "databases", "--allow_overlap")
    places = ("--base_model", tiny_model, "--adapters", trained / "adapter", "--output_file", tmp_path / "report.json")
    run = run_main("evaluate", *places, *flags, "--dtype", "float32")
    assert run.returncode == 0, run.stderr
    [listed] = json.loads((tmp_path / "report.json").read_text())["candidates"]
    results = ["The query returned 1 row, columns: COUNT(*)\n(3)", "The query failed: no such table: nowhere"]
    with Executor(1) as executor:
        path = tmp_path / "databases" / "shop" / "shop.sqlite"
        told = [asyncio.run(executor.observe(path, sql, "")).feedback for sql in queries[:2]]
    assert all(text.startswith(start[:20]) for text, start in zip(told, results, strict=True))
    length = recorded_result_length(trained / "adapter")
    model, tokenizer = load_reward_model(tiny_model, trained / "adapter", "float32")
    read = [answer(sql, text, length) for sql, text in zip(queries[:2], told, strict=True)]
    [expected] = score(model, tokenizer, [("the task", read)])
    found = [list(one["rewards"].values()) for one in listed["candidates"]]
    assert [reward for [reward] in found[:2]] == pytest.approx(expected, abs=1e-5) and found[2] == []


def test_pairs_without_results_are_judged_by_adapters_that_read_none(trained, tiny_model, tmp_path, pair_rows):
    bare = [{name: value for name, value in row.items() if not name.endswith("_result")} for row in pair_rows]
    write_json(tmp_path / "pairs.json", bare)
    run = evaluate(tmp_path, tiny_model, "none", trained / "adapter")
    assert_one_line_error(run, "pairs.json: row 0: chosen_result or rejected_result", "tree.dpo_extractor")
    assert evaluate(tmp_path, tiny_model, "none").returncode == 0


def test_the_hub_is_asked_nothing(hub, trained, tiny_model):
    """Neither for files nor to tell it of a run, as TRL does; train.py ran for the fixture."""
    script = ("evaluate.py", "--allow_overlap", *evaluation(trained, tiny_model, trained / "adapter"))
    run = run_script(*script, HF_ENDPOINT=address(hub))
    assert run.returncode == 0, run.stderr
    with pytest.raises(BlockingIOError):
        hub.accept()


def test_the_snippet_of_the_readme_scores(trained, tiny_model, tmp_path):
    [snippet] = re.findall(r"```python\n(from common.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "Qwen2.5-Coder-1.5B-Instruct").symlink_to(tiny_model)
    (tmp_path / "qwen-reward-model-sql-train").symlink_to(trained / "adapter")
    run = run_script("-c", snippet, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    model, tokenizer = load_reward_model(tiny_model, trained / "adapter")
    read = [answer(f"SELECT {n}", f"The query returned 1 row, columns: {n}\n({n})", 300) for n in (1, 2)]
    [expected] = score(model, tokenizer, [("the prompt of a tree or pair", read)])
    assert json.loads(run.stdout) == pytest.approx(expected, abs=1e-5)


def test_evaluation_on_the_training_data_is_refused(trained, tiny_model):
    run = run_main("evaluate", *evaluation(trained, tiny_model, "none", trained / "adapter"))
    assert_one_line_error(run, "pairs.json", "was trained on database 'shop' and 1 more", "--allow_overlap")


def test_adapters_that_cannot_be_used(trained, tiny_model, tmp_path):
    (tmp_path / "empty").mkdir()
    wider = make_tiny_model(tmp_path / "wider", hidden_size=64)
    other = make_tiny_model(tmp_path / "other", seed=1)
    for base, adapter, words in (
        (tiny_model, tmp_path / "nowhere", "nowhere"),
        (tiny_model, tmp_path / "empty", "adapter_config.json"),
        (wider, trained / "adapter", "another base model"),
        (other, trained / "adapter", "whose weights are not those"),
    ):
        assert_one_line_error(evaluate(trained, base, adapter), words)


def test_wrong_settings_of_evaluate(trained, tiny_model):
    assert_one_line_error(run_main("evaluate", "--batch_size", "0"), "--batch_size")
    assert_one_line_error(evaluate(trained, tiny_model, "none", "none"), "is duplicated")
