"""Train a LoRA reward model on preference pairs, with TRL's trainer and what candidates share computed once (step 5):

    python train.py
    python train.py --model_id Qwen2.5-Coder-0.5B-Instruct --max_steps 16    # a trial on a CPU
    accelerate launch train.py                                               # several GPUs

Edit the constants, or give one as a flag of the same name in lower case. Writes into OUTPUT_DIR: adapter with score
head, tokenizer, README.md (model card), training_curve.png, metrics.json, trained_on.json, manifest.json, and the last
checkpoints. A run that was killed goes on from its last checkpoint when the same command is given again.
"""

import argparse
import ast
import contextlib
import os
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

from tree.files import InputError, run_script, write_json

# --------------------------------------------------------------------------------------------------
# I/O
MODEL_ID = "Qwen2.5-Coder-1.5B-Instruct"  # folder of the base model
DATA_PATH = "final_data_train.json"  # preference pairs (step 4.2)
OUTPUT_DIR = "qwen-reward-model-sql-train"  # folder to write to
FRESH = False  # begin anew, also when OUTPUT_DIR holds this run, finished or to be continued
CHECKPOINT_STEPS = 50  # optimiser steps between two checkpoints to go on from after a kill (0 = those of validations)
REPORT_TO = "none"  # where else curves go, separated by commas: tensorboard, wandb, … ("none" = nowhere)
# data
VALIDATION_FRACTION = 0.1  # share of the questions held out for validation (0 = none)
MAX_LENGTH = 4096  # longest prompt + SQL in tokens; pairs with a longer side are dropped and counted
SHARE_PREFIX = True  # schema, question and what else candidates share computed once; False: TRL's own, pair by pair
TOKEN_BUDGET = 8192  # tokens of one packed sequence; batches with more are split, repeating what is shared
MARGIN_BY_DISTANCE = 0.0  # margin of a correct query over one that never got there, less between others (0 = off)
# model
BASE_DTYPE = "auto"  # of the frozen base: float32, bfloat16, auto (bfloat16 where the machine has it, else float32)
LORA_R = 16  # rank
LORA_ALPHA = 32  # scale, usually 2 x rank
LORA_DROPOUT = 0.05  # dropout on LoRA's input (0 = off)
LORA_TARGETS = "all-linear"  # modules that get LoRA: all-linear, or names separated by commas
# optimisation
LEARNING_RATE = 2e-4  # peak (compared in docs/RESULTS.md); LoRA wants about ten times the rate of full fine-tuning
EPOCHS = 1.0  # passes over the pairs
MAX_STEPS = -1  # stop after so many optimiser steps (-1 = by EPOCHS)
BATCH_SIZE = 4  # questions per device and forward pass, of one database if possible (without SHARE_PREFIX: pairs)
GRADIENT_ACCUMULATION = 1  # forward passes per optimiser step (1 or 2: no difference is shown, docs/RESULTS.md)
WARMUP_FRACTION = 0.05  # share of the steps in which the rate rises to its peak
WEIGHT_DECAY = 0.0  # AdamW's weight decay (0 = off)
FLEX_ATTENTION = False  # on a GPU: FlexAttention instead of sdpa (bench/packed_attention.py tells which is faster)
GRADIENT_CHECKPOINTING = True  # recompute activations: less memory, about a third more time
LOGGING_STEPS = 10  # steps between two points of the training curve
EVAL_STEPS = 0  # steps between two validations and checkpoints (0 = once per epoch)
EARLY_STOPPING = 0  # stop after so many validations without a lower loss (0 = off)
SEED = 0  # order of the questions, split, LoRA's initial weights
# --------------------------------------------------------------------------------------------------

SETTING = re.compile(r"^([A-Z][A-Z_]+) = (.+?)  # (.+)$", re.MULTILINE)


def settings_from_source() -> list[tuple[str, object, str]]:
    """(name in lower case, value, comment) of every constant of the block above: flags and file cannot differ."""
    block = Path(__file__).read_text(encoding="utf-8").split("# " + "-" * 98)[1]
    return [(name.lower(), ast.literal_eval(value), comment) for name, value, comment in SETTING.findall(block)]


def _flag_type(value: object):
    def boolean(text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise argparse.ArgumentTypeError(f"expected true or false, not {text!r}")
        return text.lower() == "true"

    return boolean if isinstance(value, bool) else type(value)


def parse_settings() -> SimpleNamespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value, comment in settings_from_source():
        parser.add_argument(
            f"--{name}", type=_flag_type(value), default=value, help=f"{comment} (default {value})".replace("%", "%%")
        )
    settings = SimpleNamespace(**vars(parser.parse_args()))
    for name in ("max_length", "token_budget", "lora_r", "batch_size", "gradient_accumulation", "logging_steps"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)}: must be 1 or more")
    if settings.base_dtype not in ("auto", "float32", "bfloat16"):
        raise InputError(f"--base_dtype {settings.base_dtype}: must be auto, float32 or bfloat16")
    for name in ("eval_steps", "checkpoint_steps", "early_stopping", "margin_by_distance"):
        if getattr(settings, name) < 0:
            raise InputError(f"--{name} {getattr(settings, name)}: must not be negative (0 = off)")
    if settings.early_stopping and not settings.validation_fraction:
        raise InputError("--early_stopping needs validation: set --validation_fraction above 0")
    if not 0 <= settings.validation_fraction < 1 or not 0 <= settings.lora_dropout < 1:
        raise InputError("--validation_fraction and --lora_dropout must be from 0 to below 1")
    if settings.learning_rate <= 0 or settings.epochs <= 0 or settings.max_steps == 0:
        raise InputError("--learning_rate, --epochs and --max_steps must be positive (--max_steps -1 = off)")
    return settings


def lora_config(settings: SimpleNamespace):
    from peft import LoraConfig

    targets = settings.lora_targets
    return LoraConfig(
        task_type="SEQ_CLS",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets if targets == "all-linear" else [name.strip() for name in targets.split(",")],
        modules_to_save=["score"],  # otherwise the head is lost on saving
    )


def reward_config(settings: SimpleNamespace, validate: bool, first_step: int):
    import torch
    from trl import RewardConfig

    interval = "steps" if settings.eval_steps else "epoch"
    return RewardConfig(
        use_cpu=not torch.cuda.is_available(),  # lets several processes share a CPU too
        output_dir=settings.output_dir,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        warmup_steps=settings.warmup_fraction,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        gradient_checkpointing=settings.gradient_checkpointing,
        logging_steps=settings.logging_steps,
        logging_first_step=True,
        eval_strategy=interval if validate else "no",
        eval_steps=settings.eval_steps or None,
        eval_on_start=validate and not first_step,
        save_strategy=interval,
        save_steps=settings.eval_steps or 500,
        restore_callback_states_from_checkpoint=True,  # how long the loss has not fallen
        load_best_model_at_end=validate,
        metric_for_best_model="loss",  # finer than accuracy, which few pairs make coarse
        # the base is loaded in its dtype and LoRA and head stay float32: no autocast, so scores reload exactly
        bf16=False,
        disable_dropout=False,
        max_length=None,  # too long pairs are dropped and counted beforehand
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,  # every trained weight is in every pass
        dataloader_pin_memory=False,
        report_to=[name.strip() for name in settings.report_to.split(",")],
        seed=settings.seed,
    )


def tokenized_split(split: tuple[list, list], tokenizer, settings: SimpleNamespace) -> tuple[list, list, dict]:
    """Training and validation pairs as tokenized questions, and how many pairs there are."""
    from reward.data import group_by_prompt
    from reward.tokens import tokenize

    train, validation = (tokenize(group_by_prompt(pairs), tokenizer, settings.max_length) for pairs in split)
    counts = {
        name: sum(len(tokenized.question.pairs) for tokenized in part)
        for name, part in (("train_pairs", train), ("validation_pairs", validation))
    }
    counts["dropped_pairs"] = sum(map(len, split)) - sum(counts.values())
    print(
        f"{counts['train_pairs']} training pairs of {len(train)} questions, {counts['validation_pairs']} validation "
        f"pairs of {len(validation)}, {counts['dropped_pairs']} dropped (over max_length)"
    )
    if not train:
        raise InputError(
            f"{settings.data_path}: every training pair is over {settings.max_length} tokens; raise --max_length"
        )
    return train, validation, counts


def make_trainer(settings: SimpleNamespace, model, tokenizer, train: list, validation: list, first_step: int = 0):
    """The trainer of tokenized questions: ours, which packs them, or TRL's own."""
    from datasets import Dataset
    from transformers import EarlyStoppingCallback
    from trl import RewardTrainer

    from reward.tokens import pair_rows, question_rows
    from reward.trainer import (
        CheckpointKeeper,
        EndLogger,
        QuestionCollator,
        SharedPrefixTrainer,
        validation_metrics,
    )

    if settings.share_prefix:
        relations = sorted({pair.relation for part in train + validation for pair in part.question.pairs})
        make, of_kind = (
            SharedPrefixTrainer,
            {
                "data_collator": QuestionCollator(tokenizer.pad_token_id, settings.token_budget),
                "compute_metrics": validation_metrics(relations),
            },
        )
        # neighbours share a forward pass and should begin alike; in training the sampler sees to that
        validation = sorted(validation, key=lambda part: part.prefix)
        sets = [question_rows(part, settings.margin_by_distance, relations) for part in (train, validation)]
    else:
        make, of_kind = RewardTrainer, {}
        sets = [pair_rows(part, settings.margin_by_distance) for part in (train, validation)]
    return make(
        model=model,
        args=reward_config(settings, bool(validation), first_step),
        train_dataset=Dataset.from_list(sets[0]),
        eval_dataset=Dataset.from_list(sets[1]) if validation else None,
        processing_class=tokenizer,
        peft_config=lora_config(settings),
        callbacks=[
            EndLogger(),
            CheckpointKeeper(settings.checkpoint_steps),
            *([EarlyStoppingCallback(settings.early_stopping)] if settings.early_stopping else []),
        ],
        **of_kind,
    )


def validate_kept(model, tokenizer, validation: list, settings: SimpleNamespace) -> tuple[list[float], dict]:
    """Reward differences of the validation pairs with the kept model, and what `validation_results` makes of them."""
    from reward.metrics import reward_differences
    from reward.model import score
    from reward.report import validation_results

    questions = [part.question for part in validation]
    pairs = [pair for question in questions for pair in question.pairs]
    asked = [(question.prompt, question.candidates) for question in questions]
    rewards = score(model.eval(), tokenizer, asked, token_budget=settings.token_budget)
    differences = reward_differences(pairs, questions, rewards)
    margins = [settings.margin_by_distance * pair.margin for pair in pairs]
    return differences, validation_results(differences, margins, [pair.relation for pair in pairs])


def check_report_to(names: str) -> None:
    from transformers.integrations import get_available_reporting_integrations

    known = ["none", *get_available_reporting_integrations()]
    for name in names.split(","):
        if name.strip() not in known:
            raise InputError(f"--report_to {names}: {name.strip()!r} is not installed; there is: {', '.join(known)}")


def use_one_gpu_per_process() -> None:
    """Without a launcher, show this process one GPU only: TRL refuses DataParallel."""
    if "LOCAL_RANK" not in os.environ and "CUDA_VISIBLE_DEVICES" not in os.environ and shutil.which("nvidia-smi"):
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"
        print("using the first GPU; for all of them: accelerate launch train.py")


def run_manifest(settings: SimpleNamespace, base: Path):
    """What this run is, from its start."""
    from tree.manifest import Manifest
    from tree.model_folder import model_fingerprint
    from tree.prompt_settings import made_with

    prompt_settings = made_with(settings.data_path)
    return Manifest(
        vars(settings),
        {"data": settings.data_path},
        model=str(base),
        model_fingerprint=model_fingerprint(base),
        prompt_settings=prompt_settings and vars(prompt_settings),
        seed=settings.seed,
        processes=int(os.environ.get("WORLD_SIZE", "1")),
    )


def run_training(trainer, checkpoint: Path | None) -> dict:
    """Train to the end; the steps made, the step that is kept, and the seconds of this process."""
    from reward.checkpoints import train_on

    start = time.perf_counter()
    train_on(trainer, checkpoint)
    return {
        "steps": trainer.state.global_step,
        "kept_step": trainer.state.best_global_step or trainer.state.global_step,
        "seconds": round(time.perf_counter() - start, 1),
    }


def write_results(
    settings: SimpleNamespace, trainer, tokenizer, validation: list, manifest, counts: dict, first_step: int
) -> None:
    """Write metrics.json, training_curve.png, README.md and manifest.json beside the adapter."""
    from reward.report import draw_curves, history_metrics, write_card

    output, history = Path(settings.output_dir), trainer.state.log_history
    differences, validated = validate_kept(trainer.model, tokenizer, validation, settings)
    if differences and not any(differences):
        print(
            f"warning: the kept model (step {counts['kept_step']}) gives every candidate the same reward, because "
            "no later step had a lower validation loss; train longer, on more questions or with --validation_fraction 0"
        )
    metrics = counts | history_metrics(history, counts["seconds"], first_step) | validated
    write_json(output / "metrics.json", metrics | {"history": history})
    draw_curves(history, differences, output / "training_curve.png")
    write_card(output, settings.model_id, manifest.content["inputs"]["data"], settings, metrics)
    manifest.write(output / "manifest.json", **metrics)
    print(
        f"loss {metrics['train_loss_first']:.4f} -> {metrics['train_loss_last']:.4f} in {metrics['steps']} steps, "
        f"{metrics['seconds']:.0f} s, {metrics['tokens_per_second']:.0f} tokens/s, "
        f"{metrics['peak_memory_mb']} MB at most; adapter, metrics and curves in {output}"
    )


def train_reward_model(settings: SimpleNamespace, base: Path, pairs: list, split: tuple[list, list]) -> None:
    """The whole run in its folder: begun, gone on with, or found finished."""
    from reward.checkpoints import begin, end, goes_on, is_finished, save_adapter, step_of

    output, manifest = Path(settings.output_dir), run_manifest(settings, base)
    if not settings.fresh and is_finished(output, manifest.content):
        print(f"{output} holds this run, finished: nothing is trained (--fresh true trains again)")
        return
    going_on = not settings.fresh and goes_on(output, manifest.content)
    for name, value in vars(settings).items():
        print(f"{name} = {value!r}")
    if manifest.content["prompt_settings"] is None:
        print(
            f"note: no manifest beside {settings.data_path} says what its prompts were made with, so the adapter will "
            "not say it either (python -m tree.merge_shards writes one)"
        )

    # --- data ---
    use_one_gpu_per_process()
    import torch
    from transformers import set_seed

    from reward.model import base_dtype, check_saved, load_base, load_tokenizer
    from reward.trained_on import write_trained_on

    check_report_to(settings.report_to)
    if settings.flex_attention and not torch.cuda.is_available():
        raise InputError("--flex_attention true: PyTorch trains with it on a GPU only, and there is none here")
    tokenizer = load_tokenizer(base)
    train, validation, counts = tokenized_split(split, tokenizer, settings)
    checkpoint = begin(output, manifest.content, going_on)
    if checkpoint:
        print(f"going on from {checkpoint}")

    # --- model ---
    set_seed(settings.seed)
    model = load_base(base, tokenizer.pad_token_id, base_dtype(settings.base_dtype), settings.flex_attention)
    torch.nn.init.zeros_(model.score.weight)  # candidates begin even: a random head's order must first be unlearned
    first_step = step_of(checkpoint)
    trainer = make_trainer(settings, model, tokenizer, train, validation, first_step)

    # --- training ---
    counts |= run_training(trainer, checkpoint)

    # --- results ---
    save_adapter(trainer, output)
    if trainer.is_world_process_zero():
        some = [(part.question.prompt, part.question.candidates) for part in (validation or train)[:4]]
        check_saved(trainer.model, settings.output_dir, tokenizer, some)
        write_trained_on(output, pairs, manifest.content["inputs"]["data"], manifest.content["prompt_settings"])
        write_results(settings, trainer, tokenizer, validation, manifest, counts, first_step)
        end(output)


def main() -> None:
    settings = parse_settings()

    # --- everything that can be wrong, before a model is loaded ---
    from reward.data import load_pairs, split_by_question
    from tree.locks import alone_in
    from tree.model_folder import check_model_folder

    base = check_model_folder(settings.model_id)
    pairs = load_pairs(settings.data_path, with_distances=settings.margin_by_distance > 0)
    split = split_by_question(pairs, settings.validation_fraction, settings.seed)
    output = Path(settings.output_dir)
    if output.is_file():
        raise InputError(f"{output}: is a file; name a folder with --output_dir")
    first_process = os.environ.get("RANK", "0") == "0"  # which writes for the others
    with alone_in(output) if first_process else contextlib.nullcontext():
        train_reward_model(settings, base, pairs, split)


if __name__ == "__main__":
    run_script(main)
