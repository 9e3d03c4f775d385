"""Train a LoRA reward model on preference pairs, with TRL's trainer and what candidates share computed once (step 5):

    python train.py
    python train.py --model_id Qwen2.5-Coder-0.5B-Instruct --max_steps 16    # a trial on a CPU
    accelerate launch train.py                                               # several GPUs

Edit the constants, or give one as a flag of the same name in lower case. Writes into OUTPUT_DIR: adapter with score
head, tokenizer, README.md (model card), training_curve.png, metrics.json, trained_on.json, manifest.json, and the last
checkpoints. A run that was killed is resumed from its last checkpoint when the same command is given again.
"""

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import InputError, run_script
from common.locks import alone_in
from common.manifest import Manifest
from common.model_folder import check_model_folder, model_fingerprint
from common.preference import PreferencePair, check_results, read_pairs
from common.trained_on import write_trained_on
from reward.checkpoints import begin, end, is_finished, is_unfinished, save_adapter, steps_made, train_from
from reward.data import QuestionPairs
from reward.launch import check_accelerate, check_machine, is_first_process, stay_offline, use_one_gpu
from reward.metrics import reward_differences
from reward.report import history_metrics, validation_results, write_results
from reward.settings import TrainingSettings, read_settings, settings_of
from reward.tokens import TokenizedQuestion, load_tokenizer, pairs_of, training_data
from reward.trainer_arguments import lora_config as adapter_config
from reward.trainer_arguments import trainer_arguments
from tree.run.prompt_settings import made_with

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import RewardConfig

    from reward.trainer import PreferenceTrainer

# --------------------------------------------------------------------------------------------------
# input
MODEL_ID = "Qwen2.5-Coder-1.5B-Instruct"  # folder of the base model
DATA_PATH = "final_data_train.json"  # preference pairs (step 4.2)
# data
VALIDATION_FRACTION = 0.1  # share of the questions held out for validation, by whole databases if possible (0 = none)
MAX_LENGTH = 4096  # longest prompt + answer in tokens; pairs with a longer side are dropped and counted
RESULT_LENGTH = 0  # characters of what executing a query said that are read below it (0 = the query alone)
TOKEN_BUDGET = 8192  # tokens of one packed sequence; batches with more are split, repeating what is shared
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
BATCH_SIZE = 4  # questions per device and forward pass, of one database if possible
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
FRESH = False  # begin anew, also when OUTPUT_DIR holds this run, finished or to be resumed
CHECKPOINT_STEPS = 50  # optimiser steps between two checkpoints to resume from after a kill (0 = those of validations)
REPORT_TO = "none"  # where else curves go, separated by commas: tensorboard, wandb, … ("none" = nowhere)
# --------------------------------------------------------------------------------------------------
SCRIPT = "train.py"


def default_settings() -> TrainingSettings:
    """The constants above."""
    return settings_of(TrainingSettings, globals())


def lora_config(settings: TrainingSettings) -> "LoraConfig":
    return adapter_config(settings, "SEQ_CLS", modules_to_save=["score"])  # otherwise the head is lost on saving


def reward_config(settings: TrainingSettings, validate: bool = False, first_step: int = 0) -> "RewardConfig":
    """TRL's settings of a run that validates or not, from its first step or resumed from a later one."""
    from trl import RewardConfig

    arguments = trainer_arguments(settings, validate, first_step)
    return RewardConfig(weight_decay=settings.weight_decay, disable_dropout=False, **arguments)


def make_trainer(
    settings: TrainingSettings,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    train: Sequence[TokenizedQuestion],
    validation: Sequence[TokenizedQuestion] = (),
    first_step: int = 0,
) -> "PreferenceTrainer":
    """The trainer of a base model with new LoRA weights; `first_step` is above 0 for a run that is resumed."""
    from datasets import Dataset
    from transformers import EarlyStoppingCallback

    from reward.batches import QuestionCollator, question_rows
    from reward.low_rank import make_lean
    from reward.trainer import LogsAndCheckpoints, PreferenceTrainer, validation_metrics

    relations = sorted({pair.relation for pair in pairs_of([*train, *validation])})
    # neighbours share a forward pass and should begin alike; in training the sampler sees to that
    validation = sorted(validation, key=lambda question: question.prefix)
    train_rows, validation_rows = (question_rows(questions, relations) for questions in (train, validation))
    callbacks = [LogsAndCheckpoints(settings.checkpoint_steps)]
    if settings.early_stopping:
        callbacks.append(EarlyStoppingCallback(settings.early_stopping))
    trainer = PreferenceTrainer(
        model=model,
        args=reward_config(settings, bool(validation), first_step),
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(validation_rows) if validation else None,
        data_collator=QuestionCollator(tokenizer.pad_token_id, settings.token_budget),
        compute_metrics=validation_metrics(relations),
        processing_class=tokenizer,
        peft_config=lora_config(settings),
        callbacks=callbacks,
    )
    make_lean(trainer.model)
    return trainer


def run_manifest(settings: TrainingSettings, base: Path) -> Manifest:
    """What this run is, from its start."""
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


def print_settings(settings: TrainingSettings, manifest: Manifest) -> None:
    for name, value in asdict(settings).items():
        print(f"{name} = {value!r}")
    if manifest.content["prompt_settings"] is None:
        print(
            f"note: no manifest beside {settings.data_path} says what its prompts were made with, so the adapter will "
            "not say it either (python -m tree.merge_shards writes one)"
        )


def finite_rewards(
    trainer: "PreferenceTrainer", questions: Sequence[QuestionPairs], settings: TrainingSettings, step: int
) -> list[list[float]]:
    """Rewards of the questions' candidates with the trained model. Raises InputError when one is no finite number."""
    from reward.model import score

    candidates = [(question.prompt, question.candidates) for question in questions]
    rewards = score(trainer.model.eval(), trainer.processing_class, candidates, token_budget=settings.token_budget)
    if not all(math.isfinite(reward) for of_question in rewards for reward in of_question):
        raise trainer.diverged("a reward", step)
    return rewards


def train_reward_model(
    settings: TrainingSettings, base: Path, pairs: Sequence[PreferencePair], manifest: Manifest
) -> None:
    """The whole run, from its start or from its last checkpoint, to its results in the output folder."""
    output = Path(settings.output_dir)
    resume = not settings.fresh and is_unfinished(output, manifest.content)

    # --- data ---
    tokenizer = load_tokenizer(base)
    data = training_data([pair.as_read(settings.result_length) for pair in pairs], tokenizer, settings)
    checkpoint = begin(output, manifest.content, resume)

    # --- model ---
    import torch
    from transformers import set_seed

    from reward.model import base_dtype, check_saved, load_base

    set_seed(settings.seed)
    model = load_base(base, tokenizer.pad_token_id, base_dtype(settings.base_dtype), settings.flex_attention)
    torch.nn.init.zeros_(model.score.weight)  # candidates begin even: a random head's order must first be unlearned
    first_step = steps_made(checkpoint)
    trainer = make_trainer(settings, model, tokenizer, data.train, data.validation, first_step)

    # --- training ---
    metrics = data.counts | train_from(trainer, checkpoint)

    # --- results ---
    questions = [tokenized.question for tokenized in data.validation or data.train[:4]]
    rewards = finite_rewards(trainer, questions, settings, metrics["kept_step"])
    save_adapter(trainer, output)
    if trainer.is_world_process_zero():
        check_saved(trainer.model, output, tokenizer, [(some.prompt, some.candidates) for some in questions[:4]])
        made_from = manifest.content["inputs"]["data"], manifest.content["prompt_settings"]
        write_trained_on(output, pairs, *made_from, settings.result_length)
        validation_pairs = pairs_of(data.validation)
        differences = reward_differences(validation_pairs, questions, rewards)
        metrics |= validation_results(validation_pairs, differences)
        metrics |= history_metrics(trainer.state.log_history, metrics["seconds"], first_step)
        write_results(output, settings, manifest, trainer.state.log_history, metrics, differences)
        end(output)


def main(words: list[str] | None = None) -> None:
    settings = read_settings(TrainingSettings, globals(), words)

    # --- everything that can be wrong, before a model is loaded ---
    stay_offline()
    use_one_gpu(SCRIPT)
    check_accelerate(SCRIPT)
    base = check_model_folder(settings.model_id)
    pairs = read_pairs(settings.data_path)
    if settings.result_length:
        check_results(settings.data_path, pairs)
    output = Path(settings.output_dir)
    if output.is_file():
        raise InputError(f"{output}: is a file; name a folder with --output_dir")
    check_machine(SCRIPT, settings.report_to, settings.flex_attention)

    # --- the run, alone in its folder ---
    with alone_in(output) if is_first_process() else contextlib.nullcontext():
        manifest = run_manifest(settings, base)
        if not settings.fresh and is_finished(output, manifest.content):
            print(f"{output} holds this run, finished: nothing is trained (--fresh true trains again)")
            return
        print_settings(settings, manifest)
        train_reward_model(settings, base, pairs, manifest)


if __name__ == "__main__":
    run_script(main)
