"""Train a LoRA reward model on preference pairs, with TRL's trainer and what candidates share computed once (step 5):

    python train.py
    python train.py --model_id Qwen2.5-Coder-0.5B-Instruct --max_steps 16    # a trial on a CPU
    accelerate launch train.py                                               # several GPUs

Edit the constants, or give one as a flag of the same name in lower case. Writes into OUTPUT_DIR: adapter with score
head, tokenizer, README.md (model card), training_curve.png, metrics.json, trained_on.json, manifest.json, and the last
checkpoints. A run that was killed resumes from its last checkpoint when the same command is given again.
"""

import contextlib
import math
import os
import time
from dataclasses import asdict
from pathlib import Path

from common.files import InputError, run_script, write_json
from reward.launch import check_accelerate, check_machine, is_first_process, use_one_gpu
from reward.settings import TrainingSettings, read_settings, settings_of

# --------------------------------------------------------------------------------------------------
# input
MODEL_ID = "Qwen2.5-Coder-1.5B-Instruct"  # folder of the base model
DATA_PATH = "final_data_train.json"  # preference pairs (step 4.2)
# data
VALIDATION_FRACTION = 0.1  # share of the questions held out for validation, by whole databases if possible (0 = none)
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
# output: last, so that it can be named after any of the above
OUTPUT_DIR = "qwen-reward-model-sql-train"  # folder to write to
FRESH = False  # begin anew, also when OUTPUT_DIR holds this run, finished or to be continued
CHECKPOINT_STEPS = 50  # optimiser steps between two checkpoints to resume from after a kill (0 = those of validations)
REPORT_TO = "none"  # where else curves go, separated by commas: tensorboard, wandb, … ("none" = nowhere)
# --------------------------------------------------------------------------------------------------


def default_settings() -> TrainingSettings:
    """The constants above."""
    return settings_of(globals())


def lora_config(settings: TrainingSettings):
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


def reward_config(settings: TrainingSettings, validate: bool, first_step: int):
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
        logging_nan_inf_filter=False,  # WatchedTrainer stops there
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


def make_trainer(settings: TrainingSettings, model, tokenizer, train: list, validation: list, first_step: int = 0):
    """The trainer of tokenized questions: ours, which packs them, or TRL's own."""
    from datasets import Dataset
    from transformers import EarlyStoppingCallback

    from reward.tokens import pair_rows, question_rows
    from reward.trainer import (
        CheckpointKeeper,
        EndLogger,
        QuestionCollator,
        SharedPrefixTrainer,
        WatchedTrainer,
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
        make, of_kind = WatchedTrainer, {}
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


def kept_rewards(trainer, tokenizer, questions: list, settings: TrainingSettings, step: int) -> list[list[float]]:
    """Rewards of the questions' candidates with the kept model. Raises InputError when one is no finite number."""
    from reward.model import score

    asked = [(question.prompt, question.candidates) for question in questions]
    rewards = score(trainer.model.eval(), tokenizer, asked, token_budget=settings.token_budget)
    if not all(math.isfinite(reward) for of_question in rewards for reward in of_question):
        raise trainer.diverged("a reward", step)
    return rewards


def validate_kept(questions: list, rewards: list[list[float]], margin_scale: float) -> tuple[list[float], dict]:
    """Reward differences of the validation pairs with the kept model, and what `validation_results` makes of them."""
    from reward.metrics import reward_differences
    from reward.report import validation_results

    pairs = [pair for question in questions for pair in question.pairs]
    differences = reward_differences(pairs, questions, rewards)
    margins = [margin_scale * pair.margin for pair in pairs]
    return differences, validation_results(differences, margins, [pair.relation for pair in pairs])


def run_manifest(settings: TrainingSettings, base: Path):
    """What this run is, from its start."""
    from common.manifest import Manifest
    from common.model_folder import model_fingerprint
    from tree.run.prompt_settings import made_with

    prompt_settings = made_with(settings.data_path)
    return Manifest(
        asdict(settings),
        {"data": settings.data_path},
        model=str(base),
        model_fingerprint=model_fingerprint(base),
        prompt_settings=prompt_settings and vars(prompt_settings),
        seed=settings.seed,
        processes=int(os.environ.get("WORLD_SIZE", "1")),
    )


def run_training(trainer, checkpoint: Path | None) -> dict:
    """Train to the end; the steps made, the step that is kept, and the seconds of this process."""
    from reward.checkpoints import train_from

    start = time.perf_counter()
    train_from(trainer, checkpoint)
    return {
        "steps": trainer.state.global_step,
        "kept_step": trainer.state.best_global_step or trainer.state.global_step,
        "seconds": round(time.perf_counter() - start, 1),
    }


def write_results(
    settings: TrainingSettings, trainer, differences: list[float], manifest, counts: dict, first_step: int
) -> None:
    """Write metrics.json, training_curve.png, README.md and manifest.json beside the adapter."""
    from reward.report import doubts, draw_curves, history_metrics, write_card

    output, history = Path(settings.output_dir), trainer.state.log_history
    for doubt in doubts(differences, counts, history):
        print(f"warning: the kept model (step {counts['kept_step']}) {doubt}")
    metrics = counts | history_metrics(history, counts["seconds"], first_step)
    write_json(output / "metrics.json", metrics | {"history": history})
    draw_curves(history, differences, output / "training_curve.png")
    write_card(output, settings.model_id, manifest.content["inputs"]["data"], settings, metrics)
    manifest.write(output / "manifest.json", **metrics)
    print(
        f"loss {metrics['train_loss_first']:.4f} -> {metrics['train_loss_last']:.4f} in {metrics['steps']} steps, "
        f"{metrics['seconds']:.0f} s, {metrics['tokens_per_second']:.0f} tokens/s, "
        f"{metrics['peak_memory_mb']} MB at most; adapter, metrics and curves in {output}"
    )


def train_reward_model(settings: TrainingSettings, base: Path, pairs: list) -> None:
    """The whole run in its folder: begun, resumed, or found finished."""
    from reward.checkpoints import begin, end, is_finished, is_unfinished, save_adapter, steps_made

    output, manifest = Path(settings.output_dir), run_manifest(settings, base)
    if not settings.fresh and is_finished(output, manifest.content):
        print(f"{output} holds this run, finished: nothing is trained (--fresh true trains again)")
        return
    resume = not settings.fresh and is_unfinished(output, manifest.content)
    for name, value in asdict(settings).items():
        print(f"{name} = {value!r}")
    if manifest.content["prompt_settings"] is None:
        print(
            f"note: no manifest beside {settings.data_path} says what its prompts were made with, so the adapter will "
            "not say it either (python -m tree.merge_shards writes one)"
        )

    # --- data ---
    import torch
    from transformers import set_seed

    from reward.model import base_dtype, check_saved, load_base, load_tokenizer
    from reward.tokens import tokenized_split
    from reward.trained_on import write_trained_on

    tokenizer = load_tokenizer(base)
    train, validation, counts = tokenized_split(pairs, tokenizer, settings)
    checkpoint = begin(output, manifest.content, resume)
    if checkpoint:
        print(f"resuming from {checkpoint}")

    # --- model ---
    set_seed(settings.seed)
    model = load_base(base, tokenizer.pad_token_id, base_dtype(settings.base_dtype), settings.flex_attention)
    torch.nn.init.zeros_(model.score.weight)  # candidates begin even: a random head's order must first be unlearned
    first_step = steps_made(checkpoint)
    trainer = make_trainer(settings, model, tokenizer, train, validation, first_step)

    # --- training ---
    counts |= run_training(trainer, checkpoint)

    # --- results ---
    questions = [part.question for part in validation or train[:4]]
    rewards = kept_rewards(trainer, tokenizer, questions, settings, counts["kept_step"])
    save_adapter(trainer, output)
    if trainer.is_world_process_zero():
        some = [(question.prompt, question.candidates) for question in questions[:4]]
        check_saved(trainer.model, settings.output_dir, tokenizer, some)
        write_trained_on(output, pairs, manifest.content["inputs"]["data"], manifest.content["prompt_settings"])
        validated = (questions, rewards) if validation else ([], [])
        differences, results = validate_kept(*validated, settings.margin_by_distance)
        write_results(settings, trainer, differences, manifest, counts | results, first_step)
        end(output)


def main(words: list[str] | None = None) -> None:
    settings = read_settings(globals(), words)

    # --- everything that can be wrong, before a model is loaded ---
    use_one_gpu()
    check_accelerate()
    from common.locks import alone_in
    from common.model_folder import check_model_folder
    from reward.data import load_pairs

    base = check_model_folder(settings.model_id)
    pairs = load_pairs(settings.data_path, with_distances=settings.margin_by_distance > 0)
    output = Path(settings.output_dir)
    if output.is_file():
        raise InputError(f"{output}: is a file; name a folder with --output_dir")
    check_machine(settings)
    with alone_in(output) if is_first_process() else contextlib.nullcontext():
        train_reward_model(settings, base, pairs)


if __name__ == "__main__":
    run_script(main)
