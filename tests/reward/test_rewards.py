"""Rewards of a trained adapter: what evaluate.py and the README give, and what cannot be scored."""

import json
import re

import pytest
import torch

from common.preference import read_pairs
from reward.model import load_reward_model, score
from reward.tokens import encode
from tests.builders import evaluate, evaluation
from tests.conftest import ROOT, address, assert_one_line_error, make_tiny_model, run_main, run_script


def test_evaluation_equals_scores_computed_one_by_one(trained, tiny_model):
    run = evaluate(trained, tiny_model, "none", trained / "adapter")
    assert run.returncode == 0, run.stderr
    reports = json.loads((trained / "report.json").read_text())["pairs"]["adapters"]
    pairs = read_pairs(trained / "pairs.json")
    for adapter, report in reports.items():
        model, tokenizer = load_reward_model(tiny_model, None if adapter == "none" else adapter, "float32")
        for pair, margin in zip(pairs, report["margins"], strict=True):
            sides = encode(tokenizer, pair.prompt, [pair.chosen, pair.rejected])
            chosen, rejected = (model(input_ids=torch.tensor([ids])).logits.item() for ids in sides)
            assert chosen - rejected == pytest.approx(margin, abs=1e-5)
        expected = sum((margin > 0) + 0.5 * (margin == 0) for margin in report["margins"]) / len(pairs)
        assert report["accuracy"]["value"] == pytest.approx(expected)
        assert sum(group["pairs"] for group in report["by_relation"].values()) == len(pairs)
        assert f"{report['accuracy']['value']:.3f}" in run.stdout
    assert reports["none"]["margins"] != reports[str(trained / "adapter")]["margins"]


def test_the_hub_is_asked_nothing(hub, trained, tiny_model):
    """Neither for files nor to tell it of a run, as TRL does; train.py ran for the fixture."""
    script = ("evaluate.py", "--allow_overlap", *evaluation(trained, tiny_model, trained / "adapter"))
    run = run_script(*script, HF_ENDPOINT=address(hub))
    assert run.returncode == 0, run.stderr
    with pytest.raises(BlockingIOError):
        hub.accept()


def test_the_snippet_of_the_readme_scores(trained, tiny_model, tmp_path):
    [snippet] = re.findall(r"```python\n(from reward.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "Qwen2.5-Coder-1.5B-Instruct").symlink_to(tiny_model)
    (tmp_path / "qwen-reward-model-sql-train").symlink_to(trained / "adapter")
    run = run_script("-c", snippet, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    model, tokenizer = load_reward_model(tiny_model, trained / "adapter")
    [expected] = score(model, tokenizer, [("the prompt of a tree or pair", ["SELECT 1", "SELECT 2"])])
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
