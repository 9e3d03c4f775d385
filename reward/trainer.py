"""TRL's RewardTrainer with packed questions: its collation, their order and the loss, all else is TRL's."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import Sampler
from transformers import EvalPrediction, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints
from trl import RewardTrainer

from reward.checkpoints import seal
from reward.metrics import bradley_terry_loss, grouped_metrics, pair_metrics
from reward.packing import pack, packed_scores, pad_rows

NO_PAIR = -100  # what Trainer pads labels with


@dataclass(frozen=True)
class QuestionCollator:
    """Questions (rows of `reward.tokens.question_rows`) -> the tensors of `reward.packing.pad_rows` and their pairs.

    pairs: [Q, P, 2], places of chosen and rejected among the batch's scores. margins, relations: [Q, P]. Questions
    with fewer than P pairs are filled with pairs of relation NO_PAIR.
    """

    pad_token_id: int
    token_budget: int

    def __call__(self, questions: Sequence[dict]) -> dict[str, Tensor]:
        most = max(len(question["pairs"]) for question in questions)
        sequences = [
            ((number, place), question["prefix"] + tail)
            for number, question in enumerate(questions)
            for place, tail in enumerate(question["tails"])
        ]
        rows = pack(sorted(sequences, key=lambda sequence: sequence[1]), self.token_budget)
        score = {key: order for order, key in enumerate(key for row in rows for key in row.keys)}
        pairs = [
            [[score[number, place] for place in pair] for pair in question["pairs"]]
            + [[0, 0]] * (most - len(question["pairs"]))
            for number, question in enumerate(questions)
        ]
        return {
            "pairs": torch.tensor(pairs),  # first, because accelerate reads the batch size off it
            "margins": _filled([question["margins"] for question in questions], 0.0),
            "relations": _filled([question["relations"] for question in questions], NO_PAIR),
            **pad_rows(rows, self.pad_token_id),
        }


def _filled(lists: Sequence[list], value: float) -> Tensor:
    most = max(map(len, lists))
    return torch.tensor([entries + [value] * (most - len(entries)) for entries in lists])


class DatabaseSampler(Sampler[int]):
    """Questions in random order, but so that batches hold questions of one database, whose prompts begin alike.

    What is left over of each database fills the other batches. The order follows from seed and epoch alone, so it is
    the same on every process and when training goes on.
    """

    def __init__(self, db_ids: Sequence[str], batch_size: int, seed: int):
        self.db_ids, self.batch_size, self.seed, self.epoch = list(db_ids), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.db_ids)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.seed}/{self.epoch}")
        of_database: dict[str, list[int]] = {}
        for number in draw.sample(range(len(self)), len(self)):
            of_database.setdefault(self.db_ids[number], []).append(number)
        batches, left_over = [], []
        for numbers in of_database.values():
            *whole, rest = self._cut(numbers)
            batches += whole
            left_over += rest
        *whole, rest = self._cut(left_over)
        batches += whole
        draw.shuffle(batches)
        return chain(*batches, rest)  # the batch that is not full must be the last

    def _cut(self, numbers: list[int]) -> list[list[int]]:
        """Full batches, then what is left, which may be nothing."""
        places = range(0, len(numbers) + 1, self.batch_size)
        return [numbers[place : place + self.batch_size] for place in places]


def validation_metrics(relations: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """What Trainer computes from all validation pairs: loss, accuracy and margin, accuracy of each relation."""

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        real = prediction.label_ids != NO_PAIR
        differences, margins = (torch.from_numpy(values[real]) for values in prediction.predictions)
        names = [relations[code] for code in prediction.label_ids[real]]
        total = pair_metrics(differences.tolist())
        return {
            "loss": bradley_terry_loss(differences, torch.zeros_like(differences), margins).mean().item(),
            "accuracy": total["accuracy"],
            "margin": total["mean_margin"],
            **{
                f"accuracy_{name}": of["accuracy"]
                for name, of in grouped_metrics(names, differences.tolist()).items()
                if name
            },
        }

    return metrics


class CheckpointKeeper(TrainerCallback):
    """Checkpoints every `steps` optimiser steps too (0 = only those of validations), and of all the last and the best.

    Older ones go when the new one is complete on disk; the trainer itself must delete none.
    """

    def __init__(self, steps: int):
        self.steps = steps

    def on_step_end(self, args, state, control, **_) -> None:
        # after the last step of an epoch, and of all, there is a checkpoint anyway; none is written twice
        between = not state.epoch.is_integer() and state.global_step < state.max_steps
        if self.steps and between and state.global_step % self.steps == 0:
            control.should_save = True

    def on_save(self, args, state, control, **_) -> None:
        PartialState().wait_for_everyone()  # each process writes its own random state
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            rotate_checkpoints(args.output_dir, save_total_limit=1, best_model_checkpoint=state.best_model_checkpoint)


class EndLogger(TrainerCallback):
    """Logs after the last step of each epoch and of all too: what a run says of itself covers all its steps."""

    def on_step_end(self, args, state, control, **_) -> None:
        if state.global_step >= state.max_steps:  # before the last checkpoint is written
            control.should_log = True

    def on_epoch_end(self, args, state, control, **_) -> None:
        control.should_log = True


class SharedPrefixTrainer(RewardTrainer):
    """RewardTrainer on the rows of `reward.tokens.question_rows`, with a QuestionCollator.

    The loss of an optimiser step is the mean over all its pairs, whatever number of them stands in which forward pass
    and on which process: each forward pass gives the sum over its pairs, divided by the pairs of the whole step. So
    every pair counts the same, and batch size, accumulation and number of processes may be traded for each other. (TRL
    takes the mean of means, which is the same there because its forward passes have equal numbers of pairs.)
    Training accuracy and margin are means over all pairs since the last log, on all processes.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # since the last log: pairs, pairs ordered rightly, sum of the reward differences, tokens
        self._seen = torch.zeros(4, device=self.accelerator.device)

    def _prepare_dataset(self, dataset, *args):
        return dataset  # tokenized already

    def _get_train_sampler(self, train_dataset=None) -> DatabaseSampler:
        return DatabaseSampler(self.train_dataset["db_id"], self.args.train_batch_size, self.args.seed)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        """Pairs of an optimiser step on all processes."""
        pairs = sum((batch["relations"] != NO_PAIR).sum() for batch in batch_samples)
        return self.accelerator.reduce(torch.as_tensor(pairs, device=device), "sum")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        real = inputs["relations"] != NO_PAIR
        chosen, rejected = packed_scores(model, inputs)[inputs["pairs"][real]].unbind(-1)
        losses = bradley_terry_loss(chosen, rejected, inputs["margins"][real])
        differences = (chosen - rejected).detach()
        right = (differences > 0).sum() + 0.5 * (differences == 0).sum()
        self._seen += torch.stack([real.sum(), right, differences.sum(), inputs["lengths"].sum()])
        if num_items_in_batch is None:
            return losses.mean()
        # the gradients of the processes are averaged
        return losses.sum() * self.accelerator.num_processes / num_items_in_batch

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """No loss, but the reward differences and margins [Q, P] of the pairs, and their relations as labels."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            chosen, rejected = packed_scores(model, inputs)[inputs["pairs"]].unbind(-1)
        return None, (chosen - rejected, inputs["margins"]), inputs["relations"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # a point of the training curve
            pairs, right, difference, tokens = self.accelerator.reduce(self._seen, "sum").tolist()
            self._total_train_tokens += int(tokens)
            logs |= {"accuracy": right / pairs, "margin": difference / pairs, "num_tokens": self._total_train_tokens}
            self._seen = torch.zeros_like(self._seen)
        super().log(logs, start_time)
