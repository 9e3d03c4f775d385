"""Which training run is in a folder, and from which of its checkpoints it resumes after a kill."""

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import NO_ROOM, InputError, read_json, sync_file, write_json
from common.manifest import refuse_other_run, run_of, warn_of_other_code

if TYPE_CHECKING:
    from transformers import Trainer

UNFINISHED = "unfinished.json"  # the manifest of a run, from its start to its end
COMPLETE = "complete"  # in a checkpoint: all of it is on disk; made last and deleted first
FULL = ("PytorchStreamWriter", "inline_container", "IoError", "I/O error")  # what torch and safetensors say then
RESUMES = "the same command resumes from the last checkpoint"
# settings in which a run may differ from what it was when it began; data and model have fingerprints
MAY_DIFFER = frozenset({"fresh", "report_to", "output_dir", "model_id", "data_path", "tree_files", "checkpoint_steps"})


# --- the run of a folder ----------------------------------------------------------------------------------------------


def _run(manifest: dict) -> dict:
    return run_of(manifest, MAY_DIFFER, facts=["processes"])


def is_finished(output: Path, manifest: dict) -> bool:
    """Whether the folder holds the result of this very run."""
    stored = output / "manifest.json"
    if (output / UNFINISHED).exists() or not stored.exists() or not (output / "adapter_model.safetensors").exists():
        return False
    return _run(read_json(stored, dict)) == _run(manifest)


def is_unfinished(output: Path, manifest: dict) -> bool:
    """Whether the folder holds this very run, unfinished. Raises InputError when it holds another one, unfinished."""
    path = output / UNFINISHED
    if not path.exists():
        return False
    stored = read_json(path, dict)
    if _run(stored) != _run(manifest):
        anew = "--fresh true to begin anew, or another --output_dir"
        refuse_other_run(output, _run(stored), _run(manifest), anew)
    warn_of_other_code(output, stored, manifest)
    return True


def begin(output: Path, manifest: dict, resume: bool) -> Path | None:
    """The checkpoint to resume from, which is printed, or None to begin anew; the run is marked as unfinished.

    Every process of the run calls this, the first one changes files.
    """
    if os.environ.get("RANK", "0") == "0":
        kept = {folder for _, folder in _complete(output)} if resume else set()
        remove_checkpoints(output, kept)
        write_json(output / UNFINISHED, manifest)
    checkpoint = newest_checkpoint(output) if resume else None
    if checkpoint:
        print(f"resuming from {checkpoint}")
    return checkpoint


def end(output: Path) -> None:
    """The run is finished and its results are on disk."""
    (output / UNFINISHED).unlink()


# --- checkpoints ------------------------------------------------------------------------------------------------------


def _checkpoints(output: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint, complete or not."""
    matches = ((re.fullmatch(r"checkpoint-(\d+)", folder.name), folder) for folder in output.glob("checkpoint-*"))
    return [(int(match[1]), folder) for match, folder in matches if match and folder.is_dir()]


def _complete(output: Path) -> list[tuple[int, Path]]:
    return [(step, folder) for step, folder in _checkpoints(output) if (folder / COMPLETE).exists()]


def mark_complete(folder: Path) -> None:
    """Say of a checkpoint that it is complete, once all of it is on disk."""
    for path in folder.iterdir():
        sync_file(path)
    sync_file(folder)
    (folder / COMPLETE).touch()
    sync_file(folder)
    sync_file(folder.parent)


def newest_checkpoint(output: Path) -> Path | None:
    """The last complete checkpoint."""
    return max(_complete(output), default=(0, None))[1]


def remove_checkpoints(output: Path, kept: Collection[Path]) -> None:
    """Delete all other checkpoints of a folder; one that is left half deleted is no longer marked as complete."""
    for _, folder in _checkpoints(output):
        if folder not in kept:
            (folder / COMPLETE).unlink(missing_ok=True)
            sync_file(folder)
            shutil.rmtree(folder)


def steps_made(checkpoint: Path | None) -> int:
    """How many optimiser steps were made when the checkpoint was written."""
    return read_json(checkpoint / "trainer_state.json", dict)["global_step"] if checkpoint else 0


def training_had_ended(checkpoint: Path) -> bool:
    """Whether training had ended when the checkpoint was written: all steps made, or stopped early."""
    state = read_json(checkpoint / "trainer_state.json", dict)
    return state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]


# --- training and saving ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def room_for(output: str | os.PathLike, then: str = RESUMES) -> Iterator[None]:
    """A full disk becomes an InputError, whichever library met it; `then` says what helps once there is room."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = error.errno in NO_ROOM if isinstance(error, OSError) else any(sign in str(error) for sign in FULL)
        if not full:
            raise
        reason = str(error).splitlines()[0]
        print(file=sys.stderr)  # ends the line of the progress bar
        raise InputError(f"{output}: cannot be written, is the disk full? ({reason}) Make room; {then}") from None


def train_from(trainer: "Trainer", checkpoint: Path | None) -> dict[str, float]:
    """Train from the start, or from a checkpoint; from the last one of a run nothing is left but to keep the best.

    Returns the steps made, the step whose weights are kept, and the seconds of this process.
    """
    start = time.perf_counter()
    if checkpoint and training_had_ended(checkpoint):
        trainer.args.max_steps, trainer.args.num_train_epochs = -1, 0
    with room_for(trainer.args.output_dir):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return {
        "steps": trainer.state.global_step,
        "kept_step": trainer.state.best_global_step or trainer.state.global_step,
        "seconds": round(time.perf_counter() - start, 1),
    }


def save_adapter(trainer: "Trainer", output: Path) -> None:
    """Adapter and tokenizer; each file is replaced when all of them are there."""
    new = output / ".new"
    with room_for(output):
        trainer.save_model(str(new))
    if trainer.is_world_process_zero():
        for path in sorted(new.iterdir()):
            sync_file(path)
            os.replace(path, output / path.name)
        new.rmdir()
