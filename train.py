"""Train a LoRA reward model on preference pairs with TRL's RewardTrainer (step 5):

    python train.py
    python train.py --model_id Qwen2.5-Coder-0.5B-Instruct --base_dtype bfloat16 --max_steps 16    # a trial on a CPU
    accelerate launch train.py                                                                    # several GPUs

Edit the constants, or give one as a flag of the same name in lower case. Writes into OUTPUT_DIR: adapter with score
head, tokenizer, training_curve.png, metrics.json, manifest.json.
"""

import argparse
import ast
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
# data
VALIDATION_FRACTION = 0.1  # share of the questions held out for validation (0 = none)
MAX_LENGTH = 4096  # longest prompt + SQL in tokens; pairs with a longer side are dropped and counted
# model
BASE_DTYPE = "auto"  # of the frozen base: float32, bfloat16, auto (bfloat16 on a GPU that has it, else float32)
LORA_R = 16  # rank
LORA_ALPHA = 32  # scale, usually 2 x rank
LORA_DROPOUT = 0.05  # dropout on LoRA's input (0 = off)
LORA_TARGETS = "all-linear"  # modules that get LoRA: all-linear, or names separated by commas
# optimisation
LEARNING_RATE = 1e-4  # peak; LoRA wants about ten times the rate of full fine-tuning
EPOCHS = 1.0  # passes over the pairs
MAX_STEPS = -1  # stop after so many optimiser steps (-1 = by EPOCHS)
BATCH_SIZE = 4  # pairs per device and forward pass
GRADIENT_ACCUMULATION = 4  # forward passes per optimiser step
WARMUP_FRACTION = 0.05  # share of the steps in which the rate rises to its peak
WEIGHT_DECAY = 0.0  # AdamW's weight decay (0 = off)
GRADIENT_CHECKPOINTING = True  # recompute activations: less memory, about a third more time
LOGGING_STEPS = 10  # steps between two points of the training curve
EVAL_STEPS = 0  # steps between two validations (0 = once per epoch)
SEED = 0  # order of the pairs, split, LoRA's initial weights
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
    for name in ("max_length", "lora_r", "batch_size", "gradient_accumulation", "logging_steps"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)}: must be 1 or more")
    if settings.base_dtype not in ("auto", "float32", "bfloat16"):
        raise InputError(f"--base_dtype {settings.base_dtype}: must be auto, float32 or bfloat16")
    if not 0 <= settings.validation_fraction < 1 or not 0 <= settings.lora_dropout < 1:
        raise InputError("--validation_fraction and --lora_dropout must be from 0 to below 1")
    if settings.learning_rate <= 0 or settings.epochs <= 0 or settings.max_steps == 0:
        raise InputError("--learning_rate, --epochs and --max_steps must be positive (--max_steps -1 = off)")
    return settings


def tokenized(pairs, tokenizer, max_length: int):
    """Dataset of chosen_ids and rejected_ids; pairs with a side over max_length tokens are left out."""
    from datasets import Dataset

    from reward.model import encode

    rows = [
        {
            "chosen_ids": encode(tokenizer, pair.prompt, pair.chosen),
            "rejected_ids": encode(tokenizer, pair.prompt, pair.rejected),
        }
        for pair in pairs
    ]
    return Dataset.from_list([row for row in rows if max(map(len, row.values())) <= max_length])


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


def reward_config(settings: SimpleNamespace, validate: bool):
    import torch
    from trl import RewardConfig

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
        eval_strategy="no" if not validate else "steps" if settings.eval_steps else "epoch",
        eval_steps=settings.eval_steps or None,
        save_strategy="no",
        # the base is loaded in its dtype and LoRA and head stay float32: no autocast, so scores reload exactly
        bf16=False,
        disable_dropout=False,
        max_length=None,  # too long pairs are dropped and counted beforehand
        dataloader_pin_memory=False,
        report_to="none",
        seed=settings.seed,
    )


def draw_curve(history: list[dict], path: Path) -> None:
    """Loss and pairwise accuracy over the steps, training and validation, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for axis, key, label in ((axes[0], "loss", "Bradley-Terry loss"), (axes[1], "accuracy", "pairwise accuracy")):
        for prefix, style, name in (("", "-", "training"), ("eval_", "o--", "validation")):
            points = [(entry["step"], entry[prefix + key]) for entry in history if prefix + key in entry]
            if points:
                axis.plot(*zip(*points, strict=True), style, label=name)
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].axhline(0.6931, color="grey", linewidth=0.8, label="chance (ln 2)")
    axes[1].axhline(0.5, color="grey", linewidth=0.8, label="chance")
    for axis in axes:
        axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def summary_metrics(history: list[dict]) -> dict:
    """First and last training loss, and the last validation (None without one)."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    validations = [entry for entry in history if "eval_loss" in entry]
    last = validations[-1] if validations else {}
    return {
        "train_loss_first": losses[0],
        "train_loss_last": losses[-1],
        "validation_loss": last.get("eval_loss"),
        "validation_accuracy": last.get("eval_accuracy"),
    }


def write_results(output: Path, manifest, history: list[dict], counts: dict) -> None:
    """metrics.json, training_curve.png and manifest.json beside the adapter, and one line on the terminal."""
    metrics = counts | summary_metrics(history)
    write_json(output / "metrics.json", metrics | {"history": history})
    draw_curve(history, output / "training_curve.png")
    manifest.write(output / "manifest.json", **metrics)
    print(
        f"loss {metrics['train_loss_first']:.4f} -> {metrics['train_loss_last']:.4f} in {metrics['steps']} steps, "
        f"{metrics['seconds']:.0f} s; adapter, metrics and curve in {output}"
    )


def use_one_gpu_per_process() -> None:
    """Without a launcher, show this process one GPU only: TRL refuses DataParallel."""
    if "LOCAL_RANK" not in os.environ and "CUDA_VISIBLE_DEVICES" not in os.environ and shutil.which("nvidia-smi"):
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"
        print("using the first GPU; for all of them: accelerate launch train.py")


def main() -> None:
    settings = parse_settings()

    # --- everything that can be wrong, before a model is loaded ---
    from reward.data import load_pairs, split_by_question
    from tree.manifest import Manifest
    from tree.model_folder import check_model_folder, model_fingerprint

    base = check_model_folder(settings.model_id)
    train_pairs, validation_pairs = split_by_question(
        load_pairs(settings.data_path), settings.validation_fraction, settings.seed
    )
    output = Path(settings.output_dir)
    if output.is_file():
        raise InputError(f"{output}: is a file; name a folder with --output_dir")
    manifest = Manifest(
        vars(settings),
        {"data": settings.data_path},
        model=str(base),
        model_fingerprint=model_fingerprint(base),
        seed=settings.seed,
    )
    for name, value in vars(settings).items():
        print(f"{name} = {value!r}")

    # --- data ---
    use_one_gpu_per_process()
    from transformers import set_seed
    from trl import RewardTrainer

    from reward.model import base_dtype, load_base, load_tokenizer

    tokenizer = load_tokenizer(base)
    train = tokenized(train_pairs, tokenizer, settings.max_length)
    validation = tokenized(validation_pairs, tokenizer, settings.max_length)
    dropped = len(train_pairs) + len(validation_pairs) - len(train) - len(validation)
    print(f"{len(train)} training, {len(validation)} validation pairs, {dropped} dropped (over max_length)")
    if not len(train):
        raise InputError(
            f"{settings.data_path}: every training pair is over {settings.max_length} tokens; raise --max_length"
        )

    # --- model ---
    set_seed(settings.seed)
    model = load_base(base, tokenizer.pad_token_id, base_dtype(settings.base_dtype))
    trainer = RewardTrainer(
        model=model,
        args=reward_config(settings, len(validation) > 0),
        train_dataset=train,
        eval_dataset=validation if len(validation) else None,
        processing_class=tokenizer,
        peft_config=lora_config(settings),
    )

    # --- training ---
    start = time.perf_counter()
    trainer.train()

    # --- results ---
    trainer.save_model(settings.output_dir)
    if trainer.is_world_process_zero():
        counts = {
            "train_pairs": len(train),
            "validation_pairs": len(validation),
            "dropped_pairs": dropped,
            "steps": trainer.state.global_step,
            "seconds": round(time.perf_counter() - start, 1),
        }
        write_results(output, manifest, trainer.state.log_history, counts)


if __name__ == "__main__":
    run_script(main)
