"""The trainer of train.py, in this process: weights and scores in memory and after saving, and when it stops."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import train as script
from common.files import InputError
from common.preference import PreferencePair
from reward.data import group_by_prompt
from reward.model import check_saved, load_base, load_reward_model, score
from reward.packing import head_of
from reward.tokens import load_tokenizer, tokenize


def trainer_for(folder: Path, base: Path, pairs: list[PreferencePair], validate: bool = False, **changes):
    """The trainer of train.py, of a freshly loaded base, and its questions."""
    settings = {"output_dir": str(folder), "learning_rate": 1e-2, "gradient_checkpointing": False} | changes
    tokenizer = load_tokenizer(base)
    questions = tokenize(group_by_prompt(pairs), tokenizer, 512)
    trainer = script.make_trainer(
        replace(script.default_settings(), **settings),
        load_base(base, tokenizer.pad_token_id, torch.float32),
        tokenizer,
        questions,
        questions if validate else [],
    )
    return trainer, [tokenized.question for tokenized in questions]


def test_scores_in_memory_equal_scores_after_reloading(tmp_path, tiny_model, pairs):
    """The trained model of the trainer itself, against the saved adapter on a fresh base: equal to the bit."""
    trainer, questions = trainer_for(tmp_path, tiny_model, pairs, max_steps=3)
    trainer.train()
    trainer.save_model(tmp_path)
    tokenizer = trainer.processing_class
    candidates = [(question.prompt, question.candidates) for question in questions]
    check_saved(trainer.model, tmp_path, tokenizer, candidates)
    in_memory, reloaded, untrained = (
        score(model.cpu(), tokenizer, candidates)
        for model in (
            trainer.model.eval(),
            load_reward_model(tiny_model, tmp_path, "float32")[0],
            load_reward_model(tiny_model, None, "float32")[0],
        )
    )
    assert reloaded == in_memory
    assert reloaded != untrained  # training moved something


def test_rewards_that_are_no_numbers_end_the_run(tmp_path, tiny_model, pairs):
    """After the last step nothing has computed with its weights yet; before the first one they are the base's."""
    trainer, questions = trainer_for(tmp_path, tiny_model, pairs, validate=True)
    settings = script.default_settings()
    assert script.finite_rewards(trainer, questions, settings, 3)
    torch.nn.init.constant_(head_of(trainer.model, "score").weight, float("inf"))
    with pytest.raises(InputError, match="training diverged, a reward is not a finite number at step 3 of"):
        script.finite_rewards(trainer, questions, settings, 3)
    with pytest.raises(InputError, match="eval_loss is not a finite number before anything is trained.*float32"):
        trainer.evaluate()
    trainer.args.eval_on_start = False
    with pytest.raises(InputError, match="a loss, reward or gradient is not a finite number before anything"):
        trainer.train()


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8"])
def test_the_users_mixed_precision_changes_nothing(tmp_path, tiny_model, pairs, monkeypatch, precision):
    """accelerate launch exports what its user once answered to `accelerate config`; equal to the bit all the same."""
    weights = []
    for value in ("no", precision):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", value)
        trainer, _ = trainer_for(tmp_path, tiny_model, pairs, max_steps=2)
        trainer.train()
        weights.append([weight for weight in trainer.model.parameters() if weight.requires_grad])
    assert all(torch.equal(*both) for both in zip(*weights, strict=True))
    assert trainer.accelerator.mixed_precision == "no"


def test_a_saved_adapter_that_is_not_the_trained_one_is_an_error(trained, tiny_model, tmp_path):
    """As if the head had not been saved: its file holds another one."""
    folder = shutil.copytree(trained / "adapter", tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    [head] = [name for name in weights if "score" in name]
    weights[head] += 1
    save_file(weights, folder / "adapter_model.safetensors")
    model, tokenizer = load_reward_model(tiny_model, trained / "adapter", "float32")
    asked = [("How many?", ["SELECT 1", "SELECT 2"])]
    before = score(model, tokenizer, asked)
    check_saved(model, trained / "adapter", tokenizer, asked)
    with pytest.raises(InputError, match="rewards differ"):
        check_saved(model, folder, tokenizer, asked)
    assert score(model, tokenizer, asked) == before


def test_the_head_computes_in_float32_on_a_bfloat16_base(tiny_model):
    model = load_base(tiny_model, 0, torch.bfloat16)
    assert model.score.weight.dtype == torch.float32
    assert model(input_ids=torch.tensor([[5, 6, 7]])).logits.dtype == torch.float32
