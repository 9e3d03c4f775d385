"""A reward model exported as a plain one. That vLLM serves it is tested with `bench.reward_scoring`."""

from pathlib import Path

import pytest
import torch

from reward.model import load_reward_model, score
from reward.tokens import encode
from tests.conftest import assert_one_line_error, run_main


def export(adapter: Path, base: Path, output: Path):
    return run_main("reward.export", "--adapter", adapter, "--base_model", base, "--output", output)


def test_export_gives_a_plain_model_with_the_same_rewards(trained, tiny_model, tmp_path):
    from transformers import AutoModelForSequenceClassification

    run = export(trained / "adapter", tiny_model, tmp_path / "merged")
    assert run.returncode == 0, run.stderr
    model, tokenizer = load_reward_model(tiny_model, trained / "adapter", "float32")
    queries = ["SELECT 1", "SELECT name FROM product"]
    [rewards] = score(model, tokenizer, [("How many?", queries)])
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert plain.config.num_labels == 1 and plain.dtype == torch.float32
    for ids, reward in zip(encode(tokenizer, "How many?", queries), rewards, strict=True):
        assert plain(input_ids=torch.tensor([ids])).logits.item() == pytest.approx(reward, abs=1e-4)
    assert_one_line_error(export(trained / "adapter", tiny_model, tmp_path / "merged"), "there already")
