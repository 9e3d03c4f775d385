"""train.py as it runs: what it leaves and says, the tokens it trains on, which pairs and settings it refuses."""

import json

import pytest
import torch
from trl.data_utils import _tokenize

from common.files import write_json
from common.trained_on import recorded_result_length
from reward import batches
from reward import model as model_module
from reward.tokens import load_tokenizer
from tests.builders import evaluate, train
from tests.conftest import assert_one_line_error

# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_training_writes_everything_and_says_what_it_was(trained, pair_rows):
    folder = trained / "adapter"
    for name in ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (folder / name).stat().st_size
    assert "score" in json.loads((folder / "adapter_config.json").read_text())["modules_to_save"]
    assert (folder / "training_curve.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 4 and metrics["train_pairs"] + metrics["validation_pairs"] == len(pair_rows)
    assert 0 <= metrics["validation_accuracy"] <= 1
    assert metrics["tokens_per_second"] > 0 and metrics["peak_memory_mb"] > 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["arguments"]["learning_rate"] == 1e-2 and manifest["versions"]["trl"]
    printed = (trained / "printed.txt").read_text()
    assert "learning_rate = 0.01" in printed
    # pairs of another origin: what their prompts were made with is unknown, and said to be
    assert "note: no manifest beside" in printed and manifest["prompt_settings"] is None
    assert json.loads((folder / "trained_on.json").read_text())["prompt_settings"] is None


def test_the_model_card_says_what_the_adapter_is(trained, tiny_model):
    from huggingface_hub import ModelCard

    card = ModelCard.load(trained / "adapter" / "README.md")
    metrics = json.loads((trained / "adapter" / "metrics.json").read_text())
    manifest = json.loads((trained / "adapter" / "manifest.json").read_text())
    assert card.data.library_name == "peft" and "reward-model" in card.data.tags
    assert manifest["inputs"]["data"]["sha256"] in card.text and "rank 16" in card.text
    assert f"| validation accuracy | {metrics['validation_accuracy']:.4f} " in card.text
    assert str(tiny_model) not in card.text  # no paths of this machine


def test_validation_of_the_saved_model_is_that_of_its_step(tmp_path, tiny_model, pairs):
    """Rates far too high make the loss rise again: the best checkpoint is kept, not the last, and can stop training."""
    flags = ("--eval_steps", "1", "--learning_rate", "3", "--max_steps", "12", "--early_stopping", "3")
    run = train(tmp_path, tiny_model, *flags, "--logging_steps", "100")
    assert run.returncode == 0, run.stderr
    metrics = json.loads((tmp_path / "adapter" / "metrics.json").read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in metrics["history"] if "eval_loss" in entry}
    after_training = {step: loss for step, loss in losses.items() if step}
    assert metrics["kept_step"] == min(after_training, key=after_training.get) < metrics["steps"] < 12
    kept = next(e for e in metrics["history"] if e["step"] == metrics["kept_step"] and "eval_loss" in e)
    assert metrics["validation_loss"] == pytest.approx(kept["eval_loss"], abs=1e-5)
    assert metrics["validation_accuracy"] == kept["eval_accuracy"]
    assert metrics["validation_by_relation"]["sibling"]["accuracy"] == kept["eval_accuracy_sibling"]
    assert len(list((tmp_path / "adapter").glob("checkpoint-*"))) <= 2
    assert metrics["steps"] in [entry["step"] for entry in metrics["history"] if "loss" in entry]


def test_a_model_that_learned_nothing_is_warned_of(tmp_path, tiny_model, pairs):
    """The first step of a warmup has the rate 0, and training begins with even candidates."""
    run = train(tmp_path, tiny_model, "--max_steps", "1")
    assert run.returncode == 0 and "warning: the saved model (step 1) gives every candidate the same" in run.stdout
    assert json.loads((tmp_path / "adapter" / "metrics.json").read_text())["validation_accuracy"] == 0.5


def test_the_tokens_trained_on_are_those_that_are_scored(tmp_path, tiny_model, pairs, monkeypatch):
    """For every query of every pair, and they are TRL's."""

    def recording(module) -> set[tuple[int, ...]]:
        packed, pack = set(), module.pack

        def recorded(sequences, *limits):
            sequences = list(sequences)
            packed.update(tuple(ids) for _, ids in sequences)
            return pack(sequences, *limits)

        monkeypatch.setattr(module, "pack", recorded)
        return packed

    trained_on = recording(batches)
    run = train(tmp_path, tiny_model, "--validation_fraction", "0", "--max_steps", "3")
    assert run.returncode == 0, run.stderr
    scored = recording(model_module)
    run = evaluate(tmp_path, tiny_model, tmp_path / "adapter")
    assert run.returncode == 0, run.stderr
    tokenizer = load_tokenizer(tiny_model)
    conversations = [
        [turn._asdict() for turn in pair.prompt] + [{"role": "assistant", "content": sql}]
        for pair in (pair.as_read(recorded_result_length(tmp_path / "adapter")) for pair in pairs)
        for sql in (pair.chosen, pair.rejected)
    ]
    assert trained_on == scored == {tuple(_tokenize(tokenizer, turns)["input_ids"]) for turns in conversations}


# --- pairs and settings that cannot be used ------------------------------------------------------------------


def test_too_long_pairs_are_counted_and_all_too_long_is_an_error(tiny_model, tmp_path, pair_rows):
    long_rows = json.loads(json.dumps(pair_rows))
    long_rows[0]["rejected"][0]["content"] = "SELECT " + "1, " * 500 + "1"
    write_json(tmp_path / "pairs.json", long_rows)
    run = train(tmp_path, tiny_model, "--max_length", "300")
    assert run.returncode == 0 and "1 dropped" in run.stdout and "1 over max_length" in run.stdout
    assert_one_line_error(train(tmp_path, tiny_model, "--max_length", "5"), "max_length")


def test_pairs_without_results_are_trained_on_only_when_none_are_read(tiny_model, tmp_path, pair_rows):
    bare = [{name: value for name, value in row.items() if not name.endswith("_result")} for row in pair_rows]
    write_json(tmp_path / "pairs.json", bare)
    run = train(tmp_path, tiny_model)
    assert_one_line_error(run, "pairs.json: row 0: chosen_result or rejected_result is missing", "--result_length 0")
    assert not (tmp_path / "adapter").exists()
    assert train(tmp_path, tiny_model, "--result_length", "0", "--max_steps", "1").returncode == 0
    assert json.loads((tmp_path / "adapter" / "trained_on.json").read_text())["result_length"] == 0


def test_pairs_of_identical_queries_are_dropped_before_the_split_and_counted(tiny_model, tmp_path, pair_rows):
    same = [row | {"rejected": row["chosen"], "rejected_result": row["chosen_result"]} for row in pair_rows]
    rows = pair_rows[:2] + same[2:]
    write_json(tmp_path / "pairs.json", rows)
    alone = train(tmp_path, tiny_model)
    assert_one_line_error(alone, "1 question", "validation_fraction 0")  # nothing is left to hold out
    assert not (tmp_path / "adapter" / "unfinished.json").exists()
    run = train(tmp_path, tiny_model, "--validation_fraction", "0", "--max_steps", "1")
    assert run.returncode == 0 and "dropped pairs: 10 of identical queries" in run.stdout, run.stderr
    assert json.loads((tmp_path / "adapter" / "metrics.json").read_text())["dropped_pairs"] == 10
    write_json(tmp_path / "pairs.json", rows[2:])
    assert_one_line_error(train(tmp_path, tiny_model), "pairs.json", "10 of identical queries")


def test_whole_databases_are_held_out_and_doubtful_pairs_told(tiny_model, tmp_path, pair_rows):
    rows = [row | {"db_id": f"db{row['question_id']}"} for row in pair_rows]
    sides = {"chosen": "rejected", "rejected": "chosen", "chosen_result": "rejected_result"}
    sides |= {"rejected_result": "chosen_result"}
    turned = rows[0] | {side: rows[0][other] for side, other in sides.items()}
    write_json(tmp_path / "pairs.json", [*rows, turned, rows[1]])
    run = train(tmp_path, tiny_model, "--max_steps", "1")
    assert run.returncode == 0, run.stderr
    assert "held out for validation: 2 of 6 databases\n" in run.stdout
    assert "warning: 2 pairs contradict others" in run.stdout and "1 pairs repeat another one" in run.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--lora_r", "0"), "--lora_r 0: must be 1 or more"),
        (("--base_dtype", "int8"), "--base_dtype int8"),
        (("--early_stopping", "-1"), "--early_stopping -1"),
        (("--early_stopping", "1", "--validation_fraction", "0"), "--early_stopping needs validation"),
        (("--report_to", "nothing"), "'nothing' is not installed"),
        (("--report_to", "none,nothing"), "'nothing' is not installed"),
        (("--flex_attention", "true"), "with it on a GPU only"),
    ],
)
def test_wrong_settings_of_train(trained, tiny_model, flags, words):
    if "--flex_attention" in flags and torch.cuda.is_available():
        pytest.skip("for CPUs")
    run = train(trained, tiny_model, "--output_dir", trained / "never", *flags)
    assert_one_line_error(run, flags[0], words)
    assert not run.stdout and not (trained / "never").exists()


def test_datasets_and_trl_load_the_pair_file(trained):
    from datasets import load_dataset

    loaded = load_dataset("json", data_files=str(trained / "pairs.json"), split="train")
    assert loaded[0]["chosen"][0]["role"] == "assistant"
