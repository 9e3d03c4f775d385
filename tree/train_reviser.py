"""Train a LoRA adapter of the generator that revises wrong queries, on the right ones of their trees, with TRL's
trainer and what requests share computed once:

    python -m tree.train_reviser
    python -m tree.train_reviser --model_id Qwen2.5-Coder-0.5B-Instruct --max_steps 16    # a trial on a CPU
    accelerate launch -m tree.train_reviser                                               # several GPUs

Edit the constants, or give one as a flag of the same name in lower case. Writes into OUTPUT_DIR: adapter, tokenizer,
README.md (model card), training_curve.png, metrics.json, trained_on.json, manifest.json, and the last checkpoints.
A run that was killed is resumed from its last checkpoint when the same command is given again. With
`python -m tree.run_pipeline --reviser OUTPUT_DIR` the adapter writes the revisions, and the generator as it is the
first attempts.
"""

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import InputError, run_script
from common.locks import alone_in
from common.manifest import Manifest
from common.model_folder import check_model_folder, model_fingerprint
from common.trained_on import write_trained_on
from reward.checkpoints import begin, end, is_finished, is_unfinished, save_adapter, steps_made, train_from
from reward.launch import check_accelerate, check_machine, is_first_process, stay_offline, use_one_gpu
from reward.report import (
    Curve,
    draw_curves,
    fact_rows,
    history_metrics,
    save_card,
    training_facts,
    worse_than_before,
    write_metrics,
)
from reward.settings import LoraSettings, read_settings
from reward.tokens import held_out_prompts, load_tokenizer
from reward.trainer_arguments import lora_config, trainer_arguments
from tree.prompts import REVISIONS
from tree.revision_examples import RevisionExample, revision_examples, tokenized
from tree.tree_files import GROW_FIRST, read_trees

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from reward.trainer import CompletionTrainer

# --------------------------------------------------------------------------------------------------
# input
MODEL_ID = "Qwen2.5-Coder-3B-Instruct"  # folder of the generator that grew the trees
TREE_FILES = "output/tree_dataset/part*/*/all_trees.json"  # with commas; * means the newest run of each part
# data
REVISION = "query"  # what a request shows of the wrong query: facts, query or chat (docs/trees.md)
MAX_PER_QUESTION = 4  # wrong queries of a question at most, those that are worth most (0 = no bound)
VALIDATION_FRACTION = 0.1  # share of the questions held out for validation, by whole databases if possible (0 = none)
MAX_LENGTH = 4096  # longest request + reply in tokens; longer ones are dropped and counted
TOKEN_BUDGET = 8192  # tokens of one packed sequence; batches with more are split, repeating what is shared
# model
BASE_DTYPE = "auto"  # of the frozen base: float32, bfloat16, auto (bfloat16 where the machine has it, else float32)
LORA_R = 16  # rank
LORA_ALPHA = 32  # scale, usually 2 x rank
LORA_DROPOUT = 0.05  # dropout on LoRA's input (0 = off)
LORA_TARGETS = "all-linear"  # modules that get LoRA: all-linear, or names separated by commas
# optimisation
LEARNING_RATE = 2e-4  # peak
EPOCHS = 1.0  # passes over the examples
MAX_STEPS = -1  # stop after so many optimiser steps (-1 = by EPOCHS)
BATCH_SIZE = 8  # examples per device and forward pass, of one database if possible
GRADIENT_ACCUMULATION = 2  # forward passes per optimiser step
WARMUP_FRACTION = 0.05  # share of the steps in which the rate rises to its peak
GRADIENT_CHECKPOINTING = True  # recompute activations: less memory, about a third more time
LOGGING_STEPS = 10  # steps between two points of the training curve
EVAL_STEPS = 0  # steps between two validations and checkpoints (0 = once per epoch)
SEED = 0  # order of the examples, split, LoRA's initial weights
# output: last, so that it can be named after any of the above
OUTPUT_DIR = "qwen-reviser-sql"  # folder to write to
FRESH = False  # begin anew, also when OUTPUT_DIR holds this run, finished or to be resumed
CHECKPOINT_STEPS = 50  # optimiser steps between two checkpoints to resume from after a kill (0 = those of validations)
REPORT_TO = "none"  # where else curves go, separated by commas: tensorboard, wandb, … ("none" = nowhere)
# --------------------------------------------------------------------------------------------------
SCRIPT = "-m tree.train_reviser"
CURVES = (
    Curve("loss", "negative log-likelihood of a token"),
    Curve("accuracy", "likeliest tokens that are right"),
)
CARD = """# {name}

A reviser for text-to-SQL: the LoRA adapter of `{base}` that writes a corrected query from a wrong one and what
executing it said. Trained on right queries of revision trees, each the nearest to a wrong one of its tree.

| | |
|---|---|
{facts}

All settings and versions: `manifest.json`. Curves: `training_curve.png`, numbers: `metrics.json`.

## Use

From the project's folder, with the base model in `{base}`; first attempts are written without the adapter:

`python -m tree.run_pipeline --model {base} --reviser {name} --revision {revision}`
"""


@dataclass(frozen=True)
class ReviserSettings(LoraSettings):
    """What this script is told beside these, by the names of the constants above in lower case."""

    tree_files: str
    revision: str
    max_per_question: int


# --- data -----------------------------------------------------------------------------------------------------------


def tree_paths(names: str) -> list[Path]:
    """The files of TREE_FILES. Raises InputError for a name or pattern without one."""
    paths: list[Path] = []
    for name in names.split(","):
        found = [Path(path) for path in sorted(glob.glob(name.strip())) if Path(path).is_file()]
        if not found:
            raise InputError(f"--tree_files: {name.strip()}: no such file; {GROW_FIRST}")
        # folders of runs are named by their time
        paths += {path.parents[1]: path for path in found}.values() if glob.has_magic(name) else found
    return paths


def read_examples(paths: Sequence[Path], settings: ReviserSettings) -> list[RevisionExample]:
    """The examples of all trees, which are counted. Raises InputError when there are none."""
    examples: list[RevisionExample] = []
    counts: Counter[str] = Counter()
    for tree in (tree for path in paths for tree in read_trees(str(path))):
        of_tree = revision_examples(tree, settings.revision, settings.max_per_question)
        examples += of_tree
        counts.update(trees=1, good=tree.good, used=bool(of_tree))
    told = f"{counts['trees']} trees, {counts['good']} with a right query"
    if not examples:
        raise InputError(
            f"--tree_files {settings.tree_files}: nothing to learn from: {told}, none with a trusted one beside a "
            "wrong one; grow more trees, or deeper ones"
        )
    print(f"{told}, {counts['used']} with a trusted one beside a wrong one: {len(examples)} examples")
    return examples


@dataclass(frozen=True)
class ReviserData:
    """Rows for CompletionTrainer to train on and to validate with, and how many examples were dropped before."""

    train: list[dict]
    validation: list[dict]
    dropped: int


def reviser_data(
    examples: Sequence[RevisionExample], tokenizer: "PreTrainedTokenizerBase", settings: ReviserSettings
) -> ReviserData:
    """The examples within MAX_LENGTH, split; counts are printed. Raises InputError when none is left to train on."""
    kept: list[tuple[RevisionExample, dict]] = []
    for example in examples:
        request, answer = tokenized(example, tokenizer)
        if len(request) + len(answer) <= settings.max_length:
            row = {"input_ids": request + answer, "learned": len(answer), "db_id": example.db_id}
            kept.append((example, row))
    dropped = len(examples) - len(kept)
    if not kept:
        raise InputError(f"--max_length {settings.max_length}: all {dropped} examples are longer; give more tokens")
    held_out = held_out_prompts([example for example, _ in kept], settings)
    train = [row for example, row in kept if example.prompt not in held_out]
    validation = [row for example, row in kept if example.prompt in held_out]
    print(f"{len(train)} training examples, {len(validation)} for validation, {dropped} dropped (over max_length)")
    return ReviserData(train, validation, dropped)


# --- training -------------------------------------------------------------------------------------------------------


def make_trainer(
    settings: ReviserSettings,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    data: ReviserData,
    first_step: int = 0,
) -> "CompletionTrainer":
    """The trainer of a base model with new LoRA weights; `first_step` is above 0 for a run that is resumed."""
    from datasets import Dataset
    from trl import SFTConfig

    from reward.batches import CompletionCollator
    from reward.low_rank import make_lean
    from reward.trainer import CompletionTrainer, LogsAndCheckpoints, completion_metrics

    trainer = CompletionTrainer(
        model=model,
        args=SFTConfig(**trainer_arguments(settings, bool(data.validation), first_step)),
        train_dataset=Dataset.from_list(data.train),
        eval_dataset=Dataset.from_list(data.validation) if data.validation else None,
        data_collator=CompletionCollator(tokenizer.pad_token_id, settings.token_budget),
        compute_metrics=completion_metrics,
        processing_class=tokenizer,
        peft_config=lora_config(settings, "CAUSAL_LM"),
        callbacks=[LogsAndCheckpoints(settings.checkpoint_steps)],
    )
    make_lean(trainer.model)
    return trainer


def train_reviser(
    settings: ReviserSettings, base: Path, examples: Sequence[RevisionExample], manifest: Manifest
) -> None:
    """The whole run, from its start or from its last checkpoint, to its results in the output folder."""
    output = Path(settings.output_dir)
    resume = not settings.fresh and is_unfinished(output, manifest.content)

    # --- data ---
    tokenizer = load_tokenizer(base)
    data = reviser_data(examples, tokenizer, settings)
    checkpoint = begin(output, manifest.content, resume)

    # --- training ---
    from transformers import set_seed

    from reward.model import base_dtype, load_generator

    set_seed(settings.seed)
    model = load_generator(base, base_dtype(settings.base_dtype))
    first_step = steps_made(checkpoint)
    trainer = make_trainer(settings, model, tokenizer, data, first_step)
    metrics = {
        "train_examples": len(data.train),
        "validation_examples": len(data.validation),
        "dropped_examples": data.dropped,
        **train_from(trainer, checkpoint),
    }

    # --- results ---
    save_adapter(trainer, output)
    if trainer.is_world_process_zero():
        history = trainer.state.log_history
        metrics |= history_metrics(history, metrics["seconds"], first_step)
        write_trained_on(output, examples, manifest.content["inputs"])
        write_results(output, settings, manifest, history, metrics)
        end(output)


def write_results(
    output: Path, settings: ReviserSettings, manifest: Manifest, history: Sequence[dict], metrics: dict
) -> None:
    """Write curves, model card, metrics.json and manifest.json beside the adapter, and say how it went."""
    from huggingface_hub import ModelCardData

    validations = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    loss = validations.get(metrics["kept_step"])
    base = Path(settings.model_id).name
    facts = {
        "base model": base,
        "trained on": ", ".join(f"sha256 {file['sha256']}…" for file in manifest.content["inputs"].values()),
        "examples": f"{metrics['train_examples']} training, {metrics['validation_examples']} validation",
        "a request shows": f"REVISION {settings.revision}",
        **training_facts(settings, metrics),
        "validation loss": "none" if loss is None else f"{validations.get(0, loss):.4f} to {loss:.4f}",
    }
    card = CARD.format(name=output.name, base=base, facts=fact_rows(facts), revision=settings.revision)
    tags = ["text-to-sql", "lora", "trl"]
    save_card(output, ModelCardData(base_model=base, library_name="peft", tags=tags), card)
    draw_curves(history, CURVES, output / "training_curve.png")
    warnings = [] if loss is None else worse_than_before(loss, history)
    write_metrics(output, manifest, history, metrics | {"validation_loss": loss}, warnings)


def run_manifest(settings: ReviserSettings, base: Path, paths: Sequence[Path]) -> Manifest:
    """What this run is, from its start."""
    return Manifest(
        asdict(settings),
        {f"trees {number}": path for number, path in enumerate(paths)},
        model=str(base),
        model_fingerprint=model_fingerprint(base),
        seed=settings.seed,
        processes=int(os.environ.get("WORLD_SIZE", "1")),
    )


def main(words: list[str] | None = None) -> None:
    settings = read_settings(ReviserSettings, globals(), words)

    # --- everything that can be wrong, before a model is loaded ---
    if settings.revision not in REVISIONS:
        raise InputError(f"--revision {settings.revision}: must be {', '.join(REVISIONS)}")
    if any(name in settings.lora_targets for name in ("lm_head", "embed_tokens")):
        raise InputError(f"--lora_targets {settings.lora_targets}: the engine adapts neither lm_head nor embed_tokens")
    stay_offline()
    use_one_gpu(SCRIPT)
    check_accelerate(SCRIPT)
    base = check_model_folder(settings.model_id)
    paths = tree_paths(settings.tree_files)
    output = Path(settings.output_dir)
    if output.is_file():
        raise InputError(f"{output}: is a file; name a folder with --output_dir")
    check_machine(SCRIPT, settings.report_to)
    examples = read_examples(paths, settings)

    # --- the run, alone in its folder ---
    with alone_in(output) if is_first_process() else contextlib.nullcontext():
        manifest = run_manifest(settings, base, paths)
        if not settings.fresh and is_finished(output, manifest.content):
            print(f"{output} holds this run, finished: nothing is trained (--fresh true trains again)")
            return
        for name, value in asdict(settings).items():
            print(f"{name} = {value!r}")
        train_reviser(settings, base, examples, manifest)


if __name__ == "__main__":
    run_script(main)
