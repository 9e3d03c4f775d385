"""The reward model: tokens as TRL makes them, scores that survive saving, scripts that run and refuse."""

import json
import os
import re
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from trl.data_utils import _tokenize

import train as script
from common.files import InputError, write_json
from common.preference import PreferencePair, read_pairs
from reward import batches
from reward import model as model_module
from reward.data import group_by_prompt, split_by_question
from reward.model import check_saved, load_base, load_reward_model, score
from reward.packing import score_head
from reward.tokens import encode, load_tokenizer, tokenize
from tests.conftest import ROOT, address, assert_one_line_error, make_tiny_model, run_main, run_script

FLAGS = ("--max_steps", "4", "--batch_size", "2", "--logging_steps", "1", "--learning_rate", "1e-2")


def training(folder: Path, base: Path, *flags: object) -> tuple:
    """The flags of train.py for `folder`/pairs.json and `folder`/adapter."""
    data = ("--data_path", folder / "pairs.json", "--output_dir", folder / "adapter", "--model_id", base)
    return *data, *FLAGS, "--validation_fraction", "0.3", *flags


def train(folder: Path, base: Path, *flags: object):
    return run_main("train", *training(folder, base, *flags))


def evaluation(folder: Path, base: Path, *adapters: object) -> tuple:
    data = ("--test_data", folder / "pairs.json", "--output_file", folder / "report.json")
    return "--base_model", base, *data, "--batch_size", "3", "--dtype", "float32", "--adapters", *adapters


def evaluate(folder: Path, base: Path, *adapters: object):
    return run_main("evaluate", "--allow_overlap", *evaluation(folder, base, *adapters))


@pytest.fixture
def pairs(tmp_path, pair_rows):
    """The pairs of tmp_path/pairs.json."""
    write_json(tmp_path / "pairs.json", pair_rows)
    return read_pairs(tmp_path / "pairs.json")


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
        for pair in pairs
        for sql in (pair.chosen, pair.rejected)
    ]
    assert trained_on == scored == {tuple(_tokenize(tokenizer, turns)["input_ids"]) for turns in conversations}


def test_evaluation_on_the_training_data_is_refused(trained, tiny_model):
    run = run_main("evaluate", *evaluation(trained, tiny_model, "none", trained / "adapter"))
    assert_one_line_error(run, "pairs.json", "was trained on database 'shop' and 1 more", "--allow_overlap")


# --- the trainer ----------------------------------------------------------------------------------------------------


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
    torch.nn.init.constant_(score_head(trainer.model).weight, float("inf"))
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


# --- pairs, models and adapters that cannot be used ------------------------------------------------------------------


def test_too_long_pairs_are_counted_and_all_too_long_is_an_error(tiny_model, tmp_path, pair_rows):
    long_rows = json.loads(json.dumps(pair_rows))
    long_rows[0]["rejected"][0]["content"] = "SELECT " + "1, " * 500 + "1"
    write_json(tmp_path / "pairs.json", long_rows)
    run = train(tmp_path, tiny_model, "--max_length", "300")
    assert run.returncode == 0 and "1 dropped" in run.stdout and "1 over max_length" in run.stdout
    assert_one_line_error(train(tmp_path, tiny_model, "--max_length", "5"), "max_length")


def test_pairs_of_identical_queries_are_dropped_before_the_split_and_counted(tiny_model, tmp_path, pair_rows):
    rows = [row | {"rejected": row["chosen"]} if row["question_id"] else row for row in pair_rows]
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
    turned = rows[0] | {"chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
    write_json(tmp_path / "pairs.json", [*rows, turned, rows[1]])
    run = train(tmp_path, tiny_model, "--max_steps", "1")
    assert run.returncode == 0, run.stderr
    assert "held out for validation: 2 of 6 databases\n" in run.stdout
    assert "warning: 2 pairs contradict others" in run.stdout and "1 pairs repeat another one" in run.stdout


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


def test_wrong_settings_of_evaluate(trained, tiny_model):
    assert_one_line_error(run_main("evaluate", "--batch_size", "0"), "--batch_size")
    assert_one_line_error(evaluate(trained, tiny_model, "none", "none"), "is duplicated")


def test_validation_questions_are_not_trained_on(pairs):
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


# --- several processes ----------------------------------------------------------------------------------------------

MIXED = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
num_machines: 1
num_processes: 2
mixed_precision: bf16
"""


def launchers(machines: int, folder) -> list[tuple[str, ...]]:
    """The commands that start two processes: on one machine, whose user configured mixed precision, or one on each of
    two with the example file."""
    launch = ("-m", "accelerate.commands.launch", "--num_processes", "2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = ("--main_process_ip", "127.0.0.1", "--main_process_port", str(server.getsockname()[1]))
    if machines == 1:
        (folder / "mixed.yaml").write_text(MIXED)
        return [(*launch, "--config_file", str(folder / "mixed.yaml"), *place, "train.py")]
    example = ("--config_file", "accelerate_multi_node.yaml")
    return [(*launch, *example, *place, "--machine_rank", str(rank), "train.py") for rank in range(machines)]


@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes_train_as_one(tmp_path, tiny_model, pair_rows, machines):
    """Two processes with one question each are one with two; three questions validate, with 1 or 2 pairs.

    An epoch has five questions: in its last step one process has none. The third step begins the second epoch.
    """
    rows = [row | {"question_id": row["question_id"] + 6} for row in pair_rows[:4]]
    rows = [row | {"prompt": [{"role": "user", "content": f"Why {row['question_id']}?"}]} for row in rows]
    write_json(tmp_path / "pairs.json", [*pair_rows, *rows[:-1]])
    flags = ("--batch_size", "1", "--lora_dropout", "0", "--max_steps", "5", "--validation_fraction", "0.4")
    one = train(tmp_path, tiny_model, *flags, "--gradient_accumulation", "2")
    assert one.returncode == 0, one.stderr
    (tmp_path / "adapter").rename(tmp_path / "one")
    words = training(tmp_path, tiny_model, *flags)
    with ThreadPoolExecutor() as threads:
        for run in threads.map(
            lambda launch: run_script(*launch, *words, CUDA_VISIBLE_DEVICES=""), launchers(machines, tmp_path)
        ):
            assert run.returncode == 0, run.stderr
            warned = run.stdout.count("warning: accelerate is configured for mixed precision (bf16)")
            assert warned == (machines == 1)
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "adapter")]
    histories = [of["history"] for of in metrics]
    assert "training pairs of 5 questions" in one.stdout and metrics[0]["steps"] == metrics[1]["steps"] == 5
    for key in ("loss", "accuracy", "margin", "num_tokens", "eval_loss", "eval_accuracy", "eval_accuracy_sibling"):
        found = [[entry[key] for entry in history if key in entry] for history in histories]
        assert found[0] and found[1] == pytest.approx(found[0], abs=1e-4), key
    asked = [("How many?", ["SELECT 1", "SELECT COUNT(*) FROM product"])]
    scores = [score(*load_reward_model(tiny_model, tmp_path / name, "float32"), asked) for name in ("one", "adapter")]
    assert scores[1][0] == pytest.approx(scores[0][0], rel=1e-3)


# --- export ---------------------------------------------------------------------------------------------------------


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


SERVE = """
import json, os, sys
from vllm import LLM

if __name__ == "__main__":
    engine = LLM(sys.argv[1], runner="pooling", dtype="float32", enforce_eager=True, max_model_len=512)
    outputs = engine.classify([{"prompt_token_ids": ids} for ids in json.loads(sys.argv[2])])
    engine.llm_engine.engine_core.shutdown()
    print("REWARDS", json.dumps([output.outputs.probs for output in outputs]), flush=True)
    os._exit(0)  # threads that vLLM leaves behind can abort the interpreter while it ends
"""


def test_vllm_serves_the_exported_model(tmp_path, tiny_generator, pairs):
    run = train(tmp_path, tiny_generator)
    assert run.returncode == 0, run.stderr
    assert export(tmp_path / "adapter", tiny_generator, tmp_path / "merged").returncode == 0
    model, tokenizer = load_reward_model(tiny_generator, tmp_path / "adapter", "float32")
    queries = ["SELECT 1", "SELECT name FROM product", "SELECT COUNT(*) FROM product"]
    [rewards] = score(model, tokenizer, [("How many?", queries)])
    (tmp_path / "serve.py").write_text(SERVE)
    ids = json.dumps(encode(tokenizer, "How many?", queries))
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    served = run_script(tmp_path / "serve.py", tmp_path / "merged", ids, **settings)
    assert served.returncode == 0, served.stderr[-3000:]
    [line] = [line for line in served.stdout.splitlines() if line.startswith("REWARDS")]
    assert [reward for [reward] in json.loads(line.split(" ", 1)[1])] == pytest.approx(rewards, abs=1e-4)
