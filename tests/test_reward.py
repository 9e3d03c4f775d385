"""The reward model: tokens as TRL makes them, scores that survive saving, scripts that run and refuse."""

import json

import pytest
import torch

from reward.data import load_pairs, split_by_question
from reward.model import encode, load_base, load_reward_model, load_tokenizer, score
from tests.conftest import assert_one_line_error, make_tiny_model, run_script
from tree.files import InputError

FLAGS = ("--max_steps", "4", "--batch_size", "2", "--gradient_accumulation", "1", "--logging_steps", "1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model, pair_rows):
    """A folder where train.py has run on the tiny model: pairs.json, adapter/ and what the script printed."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "pairs.json").write_text(json.dumps(pair_rows))
    run = train(folder, tiny_model)
    assert run.returncode == 0, run.stderr
    (folder / "printed.txt").write_text(run.stdout)
    return folder


def train(folder, base, *flags):
    data = ("--data_path", folder / "pairs.json", "--output_dir", folder / "adapter", "--model_id", base)
    return run_script("train.py", *data, "--learning_rate", "1e-2", "--validation_fraction", "0.3", *FLAGS, *flags)


def evaluate(folder, base, *adapters, batch_size=3):
    return run_script(
        *("evaluate.py", "--base_model", base, "--adapters", *adapters, "--test_data", folder / "pairs.json"),
        *("--batch_size", str(batch_size), "--output_file", folder / "report.json"),
    )


def test_training_writes_everything_and_says_what_it_was(trained, pair_rows):
    folder = trained / "adapter"
    for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (folder / name).stat().st_size
    assert (folder / "training_curve.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 4 and metrics["train_pairs"] + metrics["validation_pairs"] == len(pair_rows)
    assert 0 <= metrics["validation_accuracy"] <= 1
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["arguments"]["learning_rate"] == 1e-2 and manifest["versions"]["trl"]
    assert "learning_rate = 0.01" in (trained / "printed.txt").read_text()


def test_evaluation_equals_scores_computed_one_by_one(trained, tiny_model):
    run = evaluate(trained, tiny_model, "none", trained / "adapter")
    assert run.returncode == 0, run.stderr
    reports = json.loads((trained / "report.json").read_text())["adapters"]
    tokenizer = load_tokenizer(tiny_model)
    pairs = load_pairs(trained / "pairs.json")
    for adapter, report in reports.items():
        path = None if adapter == "none" else adapter
        model = load_reward_model(tiny_model, path, torch.float32, tokenizer.pad_token_id)
        for pair, margin in zip(pairs, report["margins"], strict=True):
            chosen, rejected = (
                score(model, [encode(tokenizer, pair.prompt, sql)], 1, tokenizer.pad_token_id)[0]
                for sql in (pair.chosen, pair.rejected)
            )
            assert chosen - rejected == pytest.approx(margin, abs=1e-5)
        expected = sum((margin > 0) + 0.5 * (margin == 0) for margin in report["margins"]) / len(pairs)
        assert report["accuracy"] == pytest.approx(expected)
        assert f"{report['accuracy']:.4f}" in run.stdout
    assert reports["none"]["margins"] != reports[str(trained / "adapter")]["margins"]


def test_scores_in_memory_equal_scores_after_reloading(tmp_path, tiny_model, pair_rows):
    """The trained model of the trainer itself, against the saved adapter on a fresh base: equal to the bit."""
    from types import SimpleNamespace

    from trl import RewardTrainer

    import train as script

    (tmp_path / "pairs.json").write_text(json.dumps(pair_rows))
    settings = SimpleNamespace(**{name: value for name, value, _ in script.settings_from_source()})
    settings.output_dir, settings.max_steps, settings.gradient_checkpointing = str(tmp_path / "adapter"), 3, False
    settings.learning_rate = 1e-2
    tokenizer = load_tokenizer(tiny_model)
    dataset = script.tokenized(load_pairs(tmp_path / "pairs.json"), tokenizer, 512)
    trainer = RewardTrainer(
        model=load_base(tiny_model, tokenizer.pad_token_id, torch.float32),
        args=script.reward_config(settings, validate=False),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=script.lora_config(settings),
    )
    trainer.train()
    trainer.save_model(settings.output_dir)
    sequences = dataset["chosen_ids"][:] + dataset["rejected_ids"][:]
    kept = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    loaded = load_reward_model(tiny_model, settings.output_dir, torch.float32, tokenizer.pad_token_id)
    before = load_reward_model(tiny_model, None, torch.float32, tokenizer.pad_token_id)
    in_memory, reloaded, untrained = (
        score(model, sequences, 4, tokenizer.pad_token_id) for model in (kept.cpu(), loaded.cpu(), before.cpu())
    )
    assert reloaded == in_memory
    assert reloaded != untrained  # training moved something


def test_padding_and_batch_size_do_not_change_scores(trained, tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    model = load_reward_model(tiny_model, trained / "adapter", torch.float32, tokenizer.pad_token_id)
    sequences = [encode(tokenizer, "How many?", "SELECT " + "1 + " * count + "1") for count in (9, 0, 4, 30, 1)]
    alone = [score(model, [ids], 1, tokenizer.pad_token_id)[0] for ids in sequences]
    for batch_size in (1, 2, 5):
        assert score(model, sequences, batch_size, tokenizer.pad_token_id) == pytest.approx(alone, abs=1e-5)


def test_the_head_computes_in_float32_on_a_bfloat16_base(tiny_model):
    model = load_base(tiny_model, 0, torch.bfloat16)
    assert model.score.weight.dtype == torch.float32
    assert model(input_ids=torch.tensor([[5, 6, 7]])).logits.dtype == torch.float32


def test_tokens_are_those_of_trl(tiny_model):
    from trl.data_utils import _tokenize

    tokenizer = load_tokenizer(tiny_model)
    messages = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "SELECT 1"}]
    assert encode(tokenizer, "How many?", "SELECT 1") == _tokenize(tokenizer, messages)["input_ids"]


def test_too_long_pairs_are_counted_and_all_too_long_is_an_error(trained, tiny_model, tmp_path, pair_rows):
    long_rows = json.loads(json.dumps(pair_rows))
    long_rows[0]["rejected"][0]["content"] = "SELECT " + "1, " * 500 + "1"
    (tmp_path / "pairs.json").write_text(json.dumps(long_rows))
    run = train(tmp_path, tiny_model, "--max_length", "300")
    assert run.returncode == 0 and "1 dropped" in run.stdout
    assert_one_line_error(train(tmp_path, tiny_model, "--max_length", "5"), "max_length")


def test_a_missing_or_incomplete_model_folder(trained, tiny_model, tmp_path):
    for script in (lambda base: train(trained, base), lambda base: evaluate(trained, base, "none")):
        assert_one_line_error(script(tmp_path / "nowhere"), "nowhere", "download_model.sh")
    import shutil

    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:-100])
    assert_one_line_error(train(trained, broken), "model.safetensors", "bytes")
    (broken / "config.json").unlink()
    assert_one_line_error(evaluate(trained, broken, "none"), "config.json")


def test_an_adapter_for_another_base_is_refused(trained, tmp_path):
    wider = make_tiny_model(tmp_path / "wider", hidden_size=64)
    assert_one_line_error(evaluate(trained, wider, trained / "adapter"), "another base model")
    other = make_tiny_model(tmp_path / "other", seed=1)
    assert_one_line_error(evaluate(trained, other, trained / "adapter"), "whose weights are not those")


def test_an_adapter_that_is_none_is_refused(trained, tiny_model, tmp_path):
    assert_one_line_error(evaluate(trained, tiny_model, tmp_path / "nowhere"), "nowhere")
    (tmp_path / "empty").mkdir()
    assert_one_line_error(evaluate(trained, tiny_model, tmp_path / "empty"), "adapter_config.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("[]", "empty list"),
        ("[{]", "broken JSON"),
        ('[{"prompt": []}]', "row 0"),
        ('[{"prompt": [], "chosen": [], "rejected": [], "question_id": 1, "db_id": "a"}]', "row 0: prompt"),
    ],
)
def test_broken_pair_files(tiny_model, tmp_path, content, words):
    if content is not None:
        (tmp_path / "pairs.json").write_text(content)
    assert_one_line_error(train(tmp_path, tiny_model), "pairs.json", words)
    assert_one_line_error(evaluate(tmp_path, tiny_model, "none"), "pairs.json", words)


def test_wrong_settings(trained, tiny_model):
    assert_one_line_error(train(trained, tiny_model, "--lora_r", "0"), "--lora_r")
    assert_one_line_error(train(trained, tiny_model, "--base_dtype", "int8"), "--base_dtype")
    assert_one_line_error(evaluate(trained, tiny_model, "none", batch_size=0), "--batch_size")
    assert_one_line_error(evaluate(trained, tiny_model, "none", "none"), "more than once")


def test_validation_questions_are_not_trained_on(tmp_path, pair_rows):
    (tmp_path / "pairs.json").write_text(json.dumps(pair_rows))
    pairs = load_pairs(tmp_path / "pairs.json")
    for seed in range(5):
        one, other = split_by_question(pairs, 0.3, seed)
        assert sorted(map(hash, one + other)) == sorted(map(hash, pairs)) and one and other
        assert not {pair.question_id for pair in one} & {pair.question_id for pair in other}
        assert split_by_question(pairs, 0.0, seed) == (pairs, [])
    with pytest.raises(InputError, match="too few"):
        split_by_question(pairs[:1], 0.5, 0)


def test_datasets_and_trl_load_the_pair_file(trained):
    from datasets import load_dataset

    loaded = load_dataset("json", data_files=str(trained / "pairs.json"), split="train")
    assert loaded[0]["chosen"][0]["role"] == "assistant"


def test_accelerate_launch_trains_too(tmp_path, tiny_model, pair_rows):
    (tmp_path / "pairs.json").write_text(json.dumps(pair_rows))
    run = run_script(
        *("-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu", "train.py", "--model_id", tiny_model),
        *("--data_path", tmp_path / "pairs.json", "--output_dir", tmp_path / "adapter", *FLAGS),
    )
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "adapter" / "metrics.json").read_text())["steps"] == 4
