"""TRL's trainers on packed rows: their losses, and when training is stopped, logged and saved.

Not here: which rows make a batch (`reward.batches`), how they are packed (`reward.packing`), the loss of one pair
(`reward.metrics.bradley_terry_loss`), resuming (`reward.checkpoints`).
"""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import RewardTrainer, SFTTrainer

from common.files import InputError
from reward.batches import NOTHING, PADDING_COMPLETION, PADDING_QUESTION, DatabaseSampler
from reward.checkpoints import mark_complete, newest_checkpoint, remove_checkpoints
from reward.metrics import bradley_terry_loss, grouped_metrics, pair_metrics, wins
from reward.packing import packed_logits, packed_scores


class PackedTrainer:
    """What both trainers do alike, as the first base of one of TRL's, on tokenized rows with a column `db_id`.

    Batches are of one database as far as possible, and what their sequences share is computed once. The loss of an
    optimiser step is the mean over all that is learned in it (pairs, tokens), whichever forward pass and process that
    is in: each forward pass gives the sum over its own, divided by the number of the whole step. So each counts the
    same, and batch size, accumulation and number of processes may be traded for each other. (TRL's RewardTrainer takes
    the mean of means, which is the same where forward passes have equal numbers of pairs.) Figures of training are
    means over all that was learned since the last log, on all processes.

    Nothing is cast on the way but LoRA's factors (`reward.low_rank`; no autocast). At the first figure that is not a
    finite number, of what is WATCHED, a weight or a validation, all processes stop with an InputError, before a step or
    a checkpoint is made of it.
    """

    PADDING: dict  # a row that weighs nothing, see DatabaseSampler
    LEARNED: str  # the tensor of a batch that says what is learned, NOTHING where there is nothing
    FIGURES: tuple[str, ...]  # of each that is learned
    WATCHED = "a loss or gradient"
    loss_is_scaled_for_ga = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # since the last log: how many were learned, tokens, the sum of each figure
        self._seen = torch.zeros(2 + len(self.FIGURES), device=self.accelerator.device)

    def create_accelerator_and_postprocess(self) -> None:
        self.args.mixed_precision = "no"  # it is that of the user's accelerate configuration, whatever bf16 says
        super().create_accelerator_and_postprocess()

    # --- data ---

    def _prepare_dataset(self, dataset, *arguments):
        """The rows, which are tokenized already; behind those to train on one of padding."""
        if arguments[-1] != "train":
            return dataset
        return concatenate_datasets([dataset, Dataset.from_list([self.PADDING], features=dataset.features)])

    def _get_train_sampler(self, train_dataset=None) -> DatabaseSampler:
        *db_ids, _ = self.train_dataset["db_id"]
        return DatabaseSampler(db_ids, self.args.train_batch_size, self.args.seed, self.accelerator.num_processes)

    def _run_epoch(self, *args, train_dataloader, epoch: int, **kwargs):
        # a run that is resumed within an epoch has wrappers around the sampler that do not tell it which epoch it is
        sampler = train_dataloader.batch_sampler
        while hasattr(sampler, "batch_sampler"):
            sampler = sampler.batch_sampler
        sampler.sampler.set_epoch(epoch)
        super()._run_epoch(*args, train_dataloader=train_dataloader, epoch=epoch, **kwargs)

    # --- loss ---

    def learned(self, model: nn.Module, inputs: dict[str, Tensor], real: Tensor) -> tuple[Tensor, Tensor]:
        """Of all that a batch learns, where LEARNED is `real`: losses [K] and FIGURES [F, K]."""
        raise NotImplementedError

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        """How many an optimiser step learns on all processes."""
        count = sum((batch[self.LEARNED] != NOTHING).sum() for batch in batch_samples)
        return self.accelerator.reduce(torch.as_tensor(count, device=device), "sum")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        real = inputs[self.LEARNED] != NOTHING
        losses, figures = self.learned(model, inputs, real)
        tokens = inputs["lengths"].sum() * real.any()  # those of PADDING are none
        self._seen += torch.stack([real.sum(), tokens, *figures.detach().sum(dim=1)])
        if num_items_in_batch is None:
            return losses.mean()
        # the gradients of the processes are averaged
        return losses.sum() * self.accelerator.num_processes / num_items_in_batch

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # a point of the training curve
            count, tokens, *sums = self.accelerator.reduce(self._seen, "sum").tolist()
            self._total_train_tokens += int(tokens)
            figures = {name: total / count for name, total in zip(self.FIGURES, sums, strict=True)}
            logs |= {**figures, "num_tokens": self._total_train_tokens}
            self._seen = torch.zeros_like(self._seen)
        super().log(logs, start_time)
        if wrong := [name for name, value in logs.items() if not math.isfinite(value)]:
            raise self.diverged(wrong[0], self.state.global_step)

    # --- divergence ---

    def diverged(self, what: str, step: int) -> InputError:
        """The error of a run in which `what` is not finite at optimiser step `step`."""
        print(file=sys.stderr)  # ends the line of the progress bar
        folder = self.args.output_dir
        if not step:
            return InputError(
                f"{folder}: {what} is not a finite number before anything is trained, so the base model itself "
                "gives none; try --base_dtype float32, or fetch the model again"
            )
        newest = newest_checkpoint(Path(folder))
        return InputError(
            f"{folder}: training diverged, {what} is not a finite number at step {step} of {self.state.max_steps} with "
            f"learning_rate {self.args.learning_rate:g} (last checkpoint before: {newest.name if newest else 'none'}); "
            "begin anew with a lower rate: --learning_rate … --fresh true"
        )

    def _get_grad_norm(self, model, grad_norm=None):
        # once per optimiser step, before it is made; Trainer's own filter, which hides such losses, asks each loss
        norm = super()._get_grad_norm(model, grad_norm)
        total = self.accelerator.reduce(self._tr_loss + self._seen.sum() + norm, "sum")
        if not math.isfinite(total):
            step = self.state.global_step
            raise self.diverged(self.WATCHED, step and step + 1)
        return norm

    def _save_checkpoint(self, model, trial):
        weights = [weight.isfinite().all() for weight in model.parameters() if weight.requires_grad]
        if not torch.stack(weights).all():
            raise self.diverged("a weight", self.state.global_step)
        super()._save_checkpoint(model, trial)


class PreferenceTrainer(PackedTrainer, RewardTrainer):
    """RewardTrainer on the rows of `reward.batches.question_rows`, with a QuestionCollator; pairs are learned.

    As nothing is cast, scores reload exactly.
    """

    PADDING = PADDING_QUESTION
    LEARNED = "relations"
    FIGURES = ("accuracy", "margin")
    WATCHED = "a loss, reward or gradient"

    def learned(self, model: nn.Module, inputs: dict[str, Tensor], real: Tensor) -> tuple[Tensor, Tensor]:
        chosen, rejected = packed_scores(model, inputs)[inputs["pairs"][real]].unbind(-1)
        difference = chosen - rejected
        return bradley_terry_loss(difference), torch.stack([wins(difference), difference])

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor]:
        """No loss, but the reward differences [Q, P] of the pairs, and their relations as labels."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            chosen, rejected = packed_scores(model, inputs)[inputs["pairs"]].unbind(-1)
        return None, chosen - rejected, inputs["relations"]


class CompletionTrainer(PackedTrainer, SFTTrainer):
    """SFTTrainer on the rows of a `reward.batches.CompletionCollator`; the tokens of the replies are learned."""

    PADDING = PADDING_COMPLETION
    LEARNED = "labels"
    FIGURES = ("accuracy",)

    def learned(self, model: nn.Module, inputs: dict[str, Tensor], real: Tensor) -> tuple[Tensor, Tensor]:
        labels = inputs["labels"][real]
        logits = packed_logits(model, inputs, inputs["places"][real])
        return cross_entropy(logits, labels, reduction="none"), (logits.argmax(dim=-1) == labels).float()[None]

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, tuple[Tensor, Tensor], Tensor]:
        """No loss, but that of each token to be learned and whether it is the likeliest, [Q, T], and the labels."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs["labels"]
        real = labels != NOTHING
        losses, right = torch.zeros(labels.shape, device=labels.device), torch.zeros(labels.shape, device=labels.device)
        with torch.no_grad():
            losses[real], right[real] = self.learned(model, inputs, real)
        return None, (losses, right), labels


def completion_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """What Trainer computes of all replies held out: loss of a token, share of tokens that are the likeliest."""
    losses, right = (values[prediction.label_ids != NOTHING] for values in prediction.predictions)
    return {"loss": float(losses.mean()), "accuracy": float(right.mean())}


def validation_metrics(relations: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """What Trainer computes from all validation pairs: loss, accuracy and margin, accuracy of each relation."""

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        real = prediction.label_ids != NOTHING
        differences = torch.from_numpy(prediction.predictions[real])
        names = [relations[code] for code in prediction.label_ids[real]]
        total = pair_metrics(differences.tolist())
        groups = grouped_metrics(names, differences.tolist())
        return {
            "loss": bradley_terry_loss(differences).mean().item(),
            "accuracy": total["accuracy"],
            "margin": total["mean_margin"],
            **{f"accuracy_{name}": group["accuracy"] for name, group in groups.items() if name},
        }

    return metrics


class LogsAndCheckpoints(TrainerCallback):
    """Logs and saves at the ends, too, and keeps of all checkpoints the last and the best.

    After the last step of each epoch and of all there is a log: what a run says of itself covers all its steps. Every
    `checkpoint_steps` optimiser steps (0 = only at validations) there is a checkpoint. Older ones go when the new one
    is complete on disk; the trainer itself must delete none.
    """

    def __init__(self, checkpoint_steps: int):
        self.checkpoint_steps = checkpoint_steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        if state.global_step >= state.max_steps:  # before the last checkpoint is written
            control.should_log = True
        elif self.checkpoint_steps and not state.epoch.is_integer():  # at the end of an epoch there is one anyway
            control.should_save |= state.global_step % self.checkpoint_steps == 0

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        control.should_log = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        PartialState().wait_for_everyone()  # each process writes its own random state
        if state.is_world_process_zero:
            output = Path(args.output_dir)
            last, best = (output / f"checkpoint-{step}" for step in (state.global_step, state.best_global_step))
            mark_complete(last)
            remove_checkpoints(output, kept={last, best})
