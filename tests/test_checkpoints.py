"""train.py killed anywhere and started again: the adapter is that of an uninterrupted run."""

import json
import os
import signal
from pathlib import Path

import pytest

from reward.checkpoints import is_complete, newest_checkpoint, remove_checkpoints, seal
from tests.conftest import assert_one_line_error, run_script
from tree.locks import alone_in

# runs train.py, and dies of SIGKILL where the first argument says
KILLER = """
import os, runpy, signal, sys
from transformers import Trainer

place, number = sys.argv[1].split()

def die(calls, function, condition=lambda *arguments: True):
    def wrapped(*arguments, **named):
        nonlocal calls
        calls -= condition(*arguments)
        if not calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return wrapped

if place == "checkpoint":  # adapter and optimizer are written
    Trainer._save_rng_state = die(int(number), Trainer._save_rng_state)
if place == "adapter":  # the first of its files is in its place
    os.replace = die(int(number), os.replace, lambda source, target: str(target).endswith("adapter_model.safetensors"))
if place == "room":  # for files of so many bytes only
    import resource

    limit = lambda *arguments: resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), resource.RLIM_INFINITY))
    Trainer.train = (lambda train: lambda *arguments, **named: (limit(), train(*arguments, **named))[1])(Trainer.train)
sys.argv = sys.argv[2:]
runpy.run_path("train.py", run_name="__main__")
"""
# a rate far too high: the loss rises again after some validations, and training stops early
FLAGS = (
    *("--learning_rate", "3", "--batch_size", "1", "--gradient_accumulation", "2", "--logging_steps", "1"),
    *("--validation_fraction", "0.3", "--eval_steps", "2", "--checkpoint_steps", "1", "--early_stopping", "2"),
    *("--max_steps", "12"),
)


def train(output: Path, base: Path, *flags: str, kill: str = ""):
    script = ("-c", KILLER, kill, "train.py") if kill else ("train.py",)
    data = ("--data_path", output.parent / "pairs.json", "--output_dir", output, "--model_id", base)
    return run_script(*script, *data, *FLAGS, *flags, OMP_NUM_THREADS="1")


def weights_of(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def steps_of(output: Path) -> list[int]:
    return sorted(int(folder.name.split("-")[1]) for folder in output.glob("checkpoint-*"))


def test_killed_anywhere_and_started_again_it_ends_the_same(tmp_path, tiny_model, pair_rows):
    """In the step before early stopping, while a checkpoint is written; then while the adapter is. With dropout."""
    import torch

    (tmp_path / "pairs.json").write_text(json.dumps(pair_rows))
    whole, output = tmp_path / "whole", tmp_path / "adapter"
    run = train(whole, tiny_model)
    assert run.returncode == 0, run.stderr

    steps = json.loads((whole / "metrics.json").read_text())["steps"]
    assert steps < 12

    killed = train(output, tiny_model, kill=f"checkpoint {steps - 1}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert steps_of(output)[-1] == steps - 1 and newest_checkpoint(output).name == f"checkpoint-{steps - 2}"
    other = train(output, tiny_model, "--seed", "1")
    assert_one_line_error(other, "unfinished run with other settings", "--fresh")
    assert "\n  seed: 0 -> 1\n" in other.stderr
    killed = train(output, tiny_model, kill="adapter 1")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert f"checkpoint-{steps - 2}" in killed.stdout and steps_of(output)[-1] == steps
    assert not (output / "manifest.json").exists()
    last = train(output, tiny_model)
    assert last.returncode == 0, last.stderr
    assert f"checkpoint-{steps}" in last.stdout

    uninterrupted, found = weights_of(whole), weights_of(output)
    assert uninterrupted.keys() == found.keys()
    assert all(torch.equal(weight, found[name]) for name, weight in uninterrupted.items())
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (whole, output)]
    for name in ("steps", "kept_step", "validation_loss", "validation_accuracy", "train_loss_last"):
        assert metrics[0][name] == metrics[1][name], name
    assert steps_of(whole) == steps_of(output) and not (output / "unfinished.json").exists()

    again = train(output, tiny_model)
    assert again.returncode == 0 and "nothing is trained" in again.stdout


@pytest.mark.parametrize("size", [1_000, 100_000])  # of the adapter's and of the optimizer's file not all fits
def test_a_full_disk_while_training_is_one_line_and_nothing_is_lost(tmp_path, tiny_model, pair_rows, size):
    (tmp_path / "pairs.json").write_text(json.dumps(pair_rows))
    full = train(tmp_path / "adapter", tiny_model, kill=f"room {size}")
    assert_one_line_error(full, "adapter: cannot be written", "Make room")
    assert train(tmp_path / "adapter", tiny_model).returncode == 0


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, tiny_model, pair_rows):
    (tmp_path / "pairs.json").write_text(json.dumps(pair_rows))
    # locks are the process's, so the other run is another process
    with alone_in(tmp_path / "adapter"):
        assert_one_line_error(train(tmp_path / "adapter", tiny_model), "adapter", f"process {os.getpid()} on ")
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["lock"]
    assert train(tmp_path / "adapter", tiny_model).returncode == 0


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two sealed checkpoints."""
    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("adapter_model.safetensors", "optimizer.pt", "trainer_state.json"):
            (folder / name).write_text(name * step)
        seal(folder)
    return tmp_path


def test_the_newest_checkpoint_is_that_of_the_most_steps(output):
    (output / "checkpoint-new").mkdir()
    assert newest_checkpoint(output).name == "checkpoint-10"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "trainer_state.json", "complete.json"])
@pytest.mark.parametrize("left", [0, 5, None])
def test_a_torn_checkpoint_is_not_used_and_goes(output, name, left):
    path = output / "checkpoint-10" / name
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:left])
    assert not is_complete(path.parent)
    assert newest_checkpoint(output).name == "checkpoint-9"
    remove_checkpoints(output, torn_only=True)
    assert steps_of(output) == [9]
