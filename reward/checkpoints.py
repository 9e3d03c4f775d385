"""Which training run is in a folder, and from which of its checkpoints it goes on after a kill."""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from common.files import NO_ROOM, InputError, read_json, sync_file, write_json
from common.manifest import code_of, differences

UNFINISHED = "unfinished.json"  # the manifest of a run, from its start to its end
FULL = ("PytorchStreamWriter", "inline_container", "IoError", "I/O error")  # what torch and safetensors say then
COMPLETE = "complete.json"  # the sizes of a checkpoint's files, written when all of them are on disk
# settings in which a run may differ from what it was when it began; data and model have fingerprints
MAY_DIFFER = frozenset({"fresh", "report_to", "output_dir", "model_id", "data_path", "checkpoint_steps"})


def _run_of(manifest: dict) -> dict:
    """What makes a training run: settings, data, model, number of processes."""
    return {
        "data_fingerprint": manifest["inputs"]["data"]["sha256"],
        "model_fingerprint": manifest["model_fingerprint"],
        "processes": manifest.get("processes", 1),
        **{name: value for name, value in manifest["arguments"].items() if name not in MAY_DIFFER},
    }


def is_finished(output: Path, manifest: dict) -> bool:
    """Whether the folder holds the result of this very run."""
    stored = output / "manifest.json"
    if (output / UNFINISHED).exists() or not stored.exists() or not (output / "adapter_model.safetensors").exists():
        return False
    return _run_of(read_json(stored, dict)) == _run_of(manifest)


def goes_on(output: Path, manifest: dict) -> bool:
    """Whether the folder holds this very run, unfinished. Raises InputError when it holds another one, unfinished."""
    path = output / UNFINISHED
    if not path.exists():
        return False
    stored = read_json(path, dict)
    if changed := differences(_run_of(stored), _run_of(manifest)):
        raise InputError(
            f"{output} holds an unfinished run with other settings; give them again to go on with it, --fresh true to "
            f"begin anew, or another --output_dir:" + "".join(f"\n  {line}" for line in changed)
        )
    if changed := differences(code_of(stored), code_of(manifest)):
        print(f"warning: the run in {output} was begun with other code ({', '.join(changed)})")
    return True


def _checkpoints(output: Path) -> Iterator[tuple[int, Path]]:
    """(step, folder) of every checkpoint, whole or not."""
    for folder in output.glob("checkpoint-*"):
        if (match := re.fullmatch(r"checkpoint-(\d+)", folder.name)) and folder.is_dir():
            yield int(match[1]), folder


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != COMPLETE}


def seal(folder: Path) -> None:
    """Say of a checkpoint that it is complete, when all of it is on disk."""
    for path in folder.iterdir():
        sync_file(path)
    write_json(folder / COMPLETE, _sizes(folder))
    sync_file(folder.parent)


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint is as it was when it was sealed."""
    try:
        return read_json(folder / COMPLETE, dict) == _sizes(folder)
    except InputError:  # never sealed
        return False


def newest_checkpoint(output: Path) -> Path | None:
    """The last complete checkpoint."""
    complete = [(step, folder) for step, folder in _checkpoints(output) if is_complete(folder)]
    return max(complete)[1] if complete else None


def remove_checkpoints(output: Path, torn_only: bool) -> None:
    """Delete the checkpoints of a folder, or those that a kill tore."""
    for _, folder in list(_checkpoints(output)):
        if not torn_only or not is_complete(folder):
            shutil.rmtree(folder)


def step_of(checkpoint: Path | None) -> int:
    """How many optimiser steps were made when the checkpoint was written."""
    return read_json(checkpoint / "trainer_state.json", dict)["global_step"] if checkpoint else 0


def was_last(checkpoint: Path) -> bool:
    """Whether training had ended when the checkpoint was written: all steps made, or stopped early."""
    state = read_json(checkpoint / "trainer_state.json", dict)
    return state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]


def begin(output: Path, manifest: dict, going_on: bool) -> Path | None:
    """The checkpoint to go on from, None to begin anew; in either case the run is marked as unfinished.

    Every process of the run calls this, the first one changes files.
    """
    if os.environ.get("RANK", "0") == "0":
        remove_checkpoints(output, torn_only=going_on)
        write_json(output / UNFINISHED, manifest)
    return newest_checkpoint(output) if going_on else None


@contextlib.contextmanager
def _writing(output: str | os.PathLike) -> Iterator[None]:
    """A full disk becomes an InputError, whichever library met it."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = error.errno in NO_ROOM if isinstance(error, OSError) else any(sign in str(error) for sign in FULL)
        if not full:
            raise
        reason = str(error).splitlines()[0]
        print(file=sys.stderr)  # ends the line of the progress bar
        raise InputError(
            f"{output}: cannot be written, is the disk full? ({reason}) Make room; the same command goes on from the "
            "last checkpoint"
        ) from None


def train_on(trainer, checkpoint: Path | None) -> None:
    """Train from the start, or from a checkpoint; from the last one of a run nothing is left but to keep the best."""
    if checkpoint and was_last(checkpoint):
        trainer.args.max_steps, trainer.args.num_train_epochs = -1, 0
    with _writing(trainer.args.output_dir):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def save_adapter(trainer, output: Path) -> None:
    """Adapter and tokenizer; each file is replaced when all of them are there."""
    new = output / ".new"
    with _writing(output):
        trainer.save_model(str(new))
    if trainer.is_world_process_zero():
        for path in sorted(new.iterdir()):
            sync_file(path)
            os.replace(path, output / path.name)
        new.rmdir()


def end(output: Path) -> None:
    """The run is finished and its results are on disk."""
    (output / UNFINISHED).unlink()
