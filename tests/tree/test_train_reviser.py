"""`python -m tree.train_reviser`: what it trains on and leaves, killed and resumed, and what it refuses."""

import json
import re
import signal
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from common.files import write_json
from reward.model import load_generator
from reward.settings import settings_of
from tests.conftest import ROOT, assert_one_line_error, run_main, run_script
from tree import train_reviser as script
from tree.generator import encode, load_tokenizer
from tree.prompts import task_prompt
from tree.run.reviser import read_reviser
from tree.tree_node import INITIAL, Question, RevisionTree, tree_to_json

# runs the script, and dies of SIGKILL while it writes the fourth checkpoint
KILLER = """
import os, signal, sys
from transformers import Trainer

calls, save = 0, Trainer._save_rng_state

def dying(*arguments):
    global calls
    calls += 1
    if calls == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    save(*arguments)

Trainer._save_rng_state = dying
from common.files import run_script
from tree.train_reviser import main
run_script(main)
"""


def tree_on(number: int, database: str) -> dict:
    """A tree of three wrong queries and a right one."""
    question = Question(number, database, f"Number {number}: how many?", "", "SELECT 1")
    tree = RevisionTree(question, task_prompt(f"CREATE TABLE {database} (a);", question.question, ""))
    queries = [f"SELECT {number} FROM t", "SELECT nme FROM t", f"SELECT {number}, {number} FROM t"]
    for sql in [*queries, f"SELECT COUNT(*) + {number} FROM t"]:
        right = "COUNT" in sql
        content = {"execution_feedback": f"It says {len(sql)}.", "outcome": "ok", "is_correct": right}
        tree.add(INITIAL, generated_sql=sql, strict_match=right, **content)
    return tree_to_json(tree)


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> Path:
    """A tree file of twelve questions on six databases."""
    path = tmp_path_factory.mktemp("trees") / "all_trees.json"
    write_json(path, [tree_on(number, f"db{number % 6}") for number in range(12)])
    return path


def flags_for(trees: Path, base: Path, output: Path, *flags: object) -> list[str]:
    places = ("--tree_files", trees, "--model_id", base, "--output_dir", output)
    steps = ("--max_steps", "4", "--batch_size", "2", "--gradient_accumulation", "2", "--logging_steps", "1")
    rate = ("--learning_rate", "1e-2", "--validation_fraction", "0.3")
    return [str(word) for word in (*places, *steps, *rate, *flags)]


def train(trees: Path, base: Path, output: Path, *flags: object):
    return run_main("tree.train_reviser", *flags_for(trees, base, output, *flags))


def weights_of(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


# --- what it leaves ---------------------------------------------------------------------------------------------------


def test_training_writes_everything_and_says_what_it_was(trees, tiny_model, tmp_path):
    run = train(trees, tiny_model, tmp_path / "reviser", "--revision", "facts")
    assert run.returncode == 0, run.stderr
    assert "12 trees, 12 with a right query, 12 with a trusted one beside a wrong one: 36 examples" in run.stdout
    assert "held out for validation: 2 of 6 databases" in run.stdout
    assert "24 training examples, 12 for validation, 0 dropped" in run.stdout
    folder = tmp_path / "reviser"
    metrics, manifest = (json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "manifest"))
    assert metrics["steps"] == 4 and metrics["train_examples"] == 24 and metrics["tokens_per_second"] > 0
    losses = [entry["eval_loss"] for entry in metrics["history"] if "eval_loss" in entry]
    assert metrics["validation_loss"] == losses[-1] < losses[0]
    assert manifest["inputs"]["trees 0"]["sha256"] and manifest["arguments"]["revision"] == "facts"
    assert (folder / "training_curve.png").read_bytes().startswith(b"\x89PNG")
    card = (folder / "README.md").read_text()
    assert "--revision facts" in card and manifest["inputs"]["trees 0"]["sha256"] in card and str(tmp_path) not in card
    assert json.loads((folder / "trained_on.json").read_text())["databases"] == [f"db{number}" for number in range(6)]
    assert not (folder / "unfinished.json").exists()
    # one that the pipeline takes, and of which the engine can load all
    assert read_reviser(folder, tiny_model, "facts").rank == 16
    assert all(".lora_" in name for name in weights_of(folder))
    assert "modules_to_save" not in {
        k for k, v in json.loads((folder / "adapter_config.json").read_text()).items() if v
    }
    again = train(trees, tiny_model, folder, "--revision", "facts")
    assert again.returncode == 0 and "nothing is trained" in again.stdout


@pytest.fixture
def trainer(trees, tiny_model, tmp_path):
    """The trainer of an untrained adapter, and its data."""
    given = {"output_dir": str(tmp_path / "out"), "lora_dropout": 0.0, "validation_fraction": 0.3, "batch_size": 5}
    settings = settings_of(script.ReviserSettings, vars(script), given)
    tokenizer = script.load_tokenizer(tiny_model)
    data = script.reviser_data(script.read_examples([trees], settings), tokenizer, settings)
    return script.make_trainer(settings, load_generator(tiny_model, torch.float32), tokenizer, data), data


def test_the_loss_is_that_of_the_right_query_and_its_end_alone(trainer, tiny_model):
    """The same as that of each example by itself, as transformers computes it."""
    trainer, data = trainer
    tokenizer = load_tokenizer(tiny_model)
    for row in data.train:
        learned = tokenizer.decode(row["input_ids"][-row["learned"] :])
        assert re.fullmatch(r"SELECT COUNT\(\*\) \+ \d+ FROM t\n```<\|im_end\|>", learned)
    batches = [trainer.data_collator(data.train[:5]), trainer.data_collator([*data.train[5:9], trainer.PADDING])]
    for batch, rows in zip(batches, (data.train[:5], data.train[5:9]), strict=True):
        assert batch["lengths"].sum() < sum(len(row["input_ids"]) for row in rows)
        parts = [loss_alone(trainer.model, row) for row in rows]
        with torch.no_grad():
            loss = trainer.compute_loss(trainer.model, batch)
        assert loss.item() == pytest.approx(torch.cat(parts).mean().item(), rel=1e-4)


def loss_alone(model, row: dict) -> torch.Tensor:
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")[-row["learned"] :]


def test_two_examples_with_one_request_both_count(trainer, tiny_model):
    """Their replies begin alike, so a part of what is learned is in the rows once."""
    trainer, data = trainer
    one = data.train[0]
    other = one | {"input_ids": one["input_ids"][:-2] + [5, 6, 7], "learned": one["learned"] + 1}
    parts = [loss_alone(trainer.model, row) for row in (one, other)]
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, trainer.data_collator([one, other]))
    assert loss.item() == pytest.approx(torch.cat(parts).mean().item(), rel=1e-4)


def test_databases_are_on_one_side_and_requests_are_those_of_the_engine(trainer, trees, tiny_model):
    _, data = trainer
    sides = [{row["db_id"] for row in rows} for rows in (data.train, data.validation)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    tokenizer = load_tokenizer(tiny_model)
    asked = [row["input_ids"][: -row["learned"]] for row in data.train + data.validation]
    settings = settings_of(script.ReviserSettings, vars(script))
    examples = script.read_examples([trees], settings)
    assert sorted(asked) == sorted(encode(tokenizer, example.messages) for example in examples)


def test_every_constant_of_the_block_is_a_setting():
    block = (ROOT / "tree" / "train_reviser.py").read_text().split("# " + "-" * 98)[1]
    names = re.findall(r"^([A-Z_]+) = .+  # .+$", block, re.MULTILINE)
    assert sorted(names) == sorted(field.name.upper() for field in fields(script.ReviserSettings))
    shown = run_script("-m", "tree.train_reviser", "--help").stdout
    assert re.findall(r"^  --([a-z_]+) ", shown, re.MULTILINE) == [name.lower() for name in names]
    assert len(names) == len(re.findall(r"^[^#\n]", block, re.MULTILINE))


# --- killed and resumed -----------------------------------------------------------------------------------------------


def test_killed_and_started_again_it_ends_the_same(trees, tiny_model, tmp_path):
    """Within the second epoch of two steps, with dropout and validations."""
    often = ("--eval_steps", "2", "--checkpoint_steps", "1", "--max_steps", "6", "--max_per_question", "1")
    whole, output = (flags_for(trees, tiny_model, tmp_path / name, *often) for name in ("whole", "reviser"))
    run = run_script("-m", "tree.train_reviser", *whole, OMP_NUM_THREADS="1")
    assert run.returncode == 0, run.stderr
    killed = run_script("-c", KILLER, *output, OMP_NUM_THREADS="1")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert_one_line_error(run_main("tree.train_reviser", *output, "--seed", "1"), "other settings", "--fresh")
    moved = tmp_path / "moved.json"
    moved.write_bytes(trees.read_bytes())
    again = run_script("-m", "tree.train_reviser", *output, "--tree_files", moved, OMP_NUM_THREADS="1")
    assert again.returncode == 0 and "checkpoint-3" in again.stdout, again.stderr
    uninterrupted, found = weights_of(tmp_path / "whole"), weights_of(tmp_path / "reviser")
    assert all(torch.equal(weight, found[name]) for name, weight in uninterrupted.items())
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "reviser")]
    for name in ("steps", "kept_step", "validation_loss", "train_loss_last"):
        assert metrics[0][name] == metrics[1][name], name


# --- refused ----------------------------------------------------------------------------------------------------------


def test_of_a_pattern_the_newest_run_of_each_part_is_read_and_of_names_all(tmp_path):
    files = [tmp_path / f"part{part}" / run / "all_trees.json" for part in (0, 1) for run in ("20260101", "20260102")]
    for path in files:
        path.parent.mkdir(parents=True)
        path.touch()
    assert script.tree_paths(f"{tmp_path}/part*/*/all_trees.json") == [files[1], files[3]]
    assert script.tree_paths(f"{files[0]}, {files[1]}") == files[:2]


def without(right: bool):
    """Damages trees: no right or no wrong query is left."""

    def damage(content: list[dict]) -> None:
        for tree in content:
            for node in tree["nodes"].values():
                node["is_correct"] = node["strict_match"] = not right

    return damage


def doubted(content: list[dict]) -> None:
    for tree in content:
        for node in tree["nodes"].values():
            node["flags"] = ["fragile"]


@pytest.mark.parametrize(
    ("damage", "flags", "words"),
    [
        (without(right=True), (), "nothing to learn from: 12 trees, 0 with a right query"),
        (without(right=False), (), "nothing to learn from: 12 trees, 12 with a right query, none"),
        (doubted, (), "nothing to learn from: 12 trees, 12 with a right query, none"),
        (list.clear, (), "an empty list"),
        (None, ("--max_length", "9"), "--max_length 9: all 36 examples are longer"),
        (None, ("--revision", "error"), "--revision error: must be facts, query, chat"),
        (None, ("--tree_files", "no/part*/all_trees.json"), "no/part*/all_trees.json: no such file; grow trees first"),
        (None, ("--model_id", "nowhere"), "nowhere: no such model folder"),
        (None, ("--lora_r", "0"), "--lora_r 0: must be 1 or more"),
        (None, ("--lora_targets", "q_proj,lm_head"), "the engine adapts neither lm_head nor embed_tokens"),
        (None, ("--max_per_question", "-1"), "--max_per_question -1"),
        (None, ("--report_to", "nothing"), "'nothing' is not installed"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(trees, tiny_model, tmp_path, monkeypatch, damage, flags, words):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)  # nothing is loaded
    content = json.loads(trees.read_text())
    if damage:
        damage(content)
    write_json(tmp_path / "all_trees.json", content)
    assert_one_line_error(train(tmp_path / "all_trees.json", tiny_model, tmp_path / "reviser", *flags), words)
    assert not (tmp_path / "reviser" / "unfinished.json").exists()


def test_training_that_diverges_is_one_line_and_nothing_looks_finished(trees, tiny_model, tmp_path):
    flags = ("--learning_rate", "1e37", "--validation_fraction", "0", "--logging_steps", "100", "--lora_dropout", "0")
    run = train(trees, tiny_model, tmp_path / "reviser", *flags)
    assert_one_line_error(run, "training diverged", "is not a finite number at step", "--fresh true")
    assert not (tmp_path / "reviser" / "manifest.json").exists()
