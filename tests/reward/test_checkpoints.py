"""train.py killed anywhere and started again: the adapter is that of an uninterrupted run."""

import json
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from common.locks import alone_in
from reward.checkpoints import COMPLETE, begin, mark_complete, newest_checkpoint, remove_checkpoints
from tests.conftest import assert_one_line_error, run_main, run_script

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


def flags_for(output: Path, base: Path, *flags: str) -> tuple:
    return "--data_path", output.parent / "pairs.json", "--output_dir", output, "--model_id", base, *FLAGS, *flags


def train(output: Path, base: Path, *flags: str, kill: str = ""):
    """As a process, which can be killed and computes with one thread."""
    script = ("-c", KILLER, kill, "train.py") if kill else ("train.py",)
    return run_script(*script, *flags_for(output, base, *flags), OMP_NUM_THREADS="1")


def train_here(output: Path, base: Path, *flags: str):
    return run_main("train", *flags_for(output, base, *flags))


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
    other = train_here(output, tiny_model, "--seed", "1")
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

    again = train_here(output, tiny_model)
    assert again.returncode == 0 and "nothing is trained" in again.stdout


def test_two_processes_killed_within_an_epoch_end_the_same(tmp_path, tiny_model, pair_rows):
    """Five questions make three steps of an epoch; killed in the second one, it goes on behind the fourth step."""
    import torch

    (tmp_path / "pairs.json").write_text(json.dumps(pair_rows[:10]))
    (tmp_path / "killer.py").write_text(KILLER)
    whole, output = tmp_path / "whole", tmp_path / "adapter"
    launch = ("-m", "accelerate.commands.launch", "--num_processes", "2", "--multi_gpu")
    flags = ("--learning_rate", "1e-2", "--validation_fraction", "0", "--early_stopping", "0", "--max_steps", "6")

    def start(output: Path, *script: str | Path):
        with socket.create_server(("127.0.0.1", 0)) as server:
            place = ("--main_process_port", str(server.getsockname()[1]))
        data = ("--data_path", tmp_path / "pairs.json", "--output_dir", output, "--model_id", tiny_model)
        flags_of_one = (*FLAGS, "--gradient_accumulation", "1", *flags)
        return run_script(*launch, *place, *script, *data, *flags_of_one, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")

    run = start(whole, "train.py")
    assert run.returncode == 0, run.stderr
    # checkpoints after the steps 1, 2, 4 and 5: there is none between two validations at the end of an epoch
    killed = start(output, tmp_path / "killer.py", "checkpoint 4", "train.py")
    assert killed.returncode and newest_checkpoint(output).name == "checkpoint-4", killed.stderr
    again = start(output, "train.py")
    assert again.returncode == 0 and "checkpoint-4" in again.stdout, again.stderr
    uninterrupted, found = weights_of(whole), weights_of(output)
    assert all(torch.equal(weight, found[name]) for name, weight in uninterrupted.items())


@pytest.fixture
def hard_pairs(tmp_path: Path) -> Path:
    """pairs.json whose order no steep rule gives: of two forms of a query now the one is chosen, now the other."""
    rows = []
    for number in range(8):
        forms = [f"SELECT {number} FROM t", f"SELECT {number} FROM u WHERE x"]
        chosen, rejected = forms[:: -1 if number % 2 else 1]
        rows.append({"prompt": f"Question {number}?", "chosen": chosen, "rejected": rejected, "question_id": number})
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    return tmp_path / "pairs.json"


QUIET = ("--logging_steps", "100", "--lora_dropout", "0")  # nothing is logged before the end
UNVALIDATED = ("--validation_fraction", "0", "--early_stopping", "0", "--eval_steps", "0")
HUGE = ("--learning_rate", "1e37")  # but 0 in the first step, of the warmup


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((*HUGE, *UNVALIDATED), "a loss, reward or gradient is not a finite number at step 4 of 12"),
        ((*HUGE, "--validation_fraction", "0.5"), "is not a finite number at step"),
        (("--learning_rate", "1e300", *UNVALIDATED), "a weight is not a finite number at step 2 of 12"),
    ],
)
def test_training_that_diverges_is_one_line_and_nothing_looks_finished(tmp_path, tiny_model, hard_pairs, flags, words):
    output = tmp_path / "adapter"
    run = train_here(output, tiny_model, *QUIET, *flags)
    rate = f"with learning_rate {float(flags[1]):g}"
    assert_one_line_error(run, "adapter: training diverged", words, rate, "--fresh true")
    names = {path.name for path in output.iterdir()}
    assert "unfinished.json" in names and not names & {"manifest.json", "adapter_model.safetensors", "metrics.json"}
    kept = newest_checkpoint(output)
    assert f"last checkpoint before: {kept.name})" in run.stderr
    assert all(weight.isfinite().all() for weight in weights_of(kept).values())


def test_a_run_that_diverged_is_begun_anew_with_another_rate(tmp_path, tiny_model, hard_pairs):
    output = tmp_path / "adapter"
    for _ in range(2):  # the second time from the last checkpoint
        assert_one_line_error(train_here(output, tiny_model, *QUIET, *UNVALIDATED, *HUGE), "at step 4 of 12")
    lower = (*QUIET, *UNVALIDATED, "--learning_rate", "1e-2", "--max_steps", "2")
    assert_one_line_error(train_here(output, tiny_model, *lower), "other settings", "--fresh true")
    assert train_here(output, tiny_model, *lower, "--fresh", "true").returncode == 0


def test_all_processes_stop_where_training_diverges(tmp_path, tiny_model, hard_pairs):
    launch = ("-m", "accelerate.commands.launch", "--num_processes", "2", "--multi_gpu")
    data = ("--data_path", hard_pairs, "--output_dir", tmp_path / "adapter", "--model_id", tiny_model)
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = ("--main_process_port", str(server.getsockname()[1]))
    run = run_script(
        *(*launch, *place, "train.py", *data, *FLAGS, *QUIET, *UNVALIDATED, *HUGE, "--gradient_accumulation", "1"),
        OMP_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
    )
    assert run.returncode and "training diverged, a loss, reward or gradient" in run.stderr, run.stderr
    assert not (tmp_path / "adapter" / "manifest.json").exists()


@pytest.mark.parametrize("size", [1_000, 100_000])  # of the adapter's and of the optimizer's file not all fits
def test_a_full_disk_while_training_is_one_line_and_nothing_is_lost(tmp_path, tiny_model, pair_rows, size):
    (tmp_path / "pairs.json").write_text(json.dumps(pair_rows))
    full = train(tmp_path / "adapter", tiny_model, kill=f"room {size}")
    assert_one_line_error(full, "adapter: cannot be written", "Make room")
    assert train_here(tmp_path / "adapter", tiny_model).returncode == 0


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, tiny_model, pair_rows):
    (tmp_path / "pairs.json").write_text(json.dumps(pair_rows))
    # locks are the process's, so the other run is another process
    with alone_in(tmp_path / "adapter"):
        assert_one_line_error(train(tmp_path / "adapter", tiny_model), "adapter", f"process {os.getpid()} on ")
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["lock"]
    assert train_here(tmp_path / "adapter", tiny_model).returncode == 0


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two complete checkpoints."""
    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("adapter_model.safetensors", "optimizer.pt", "trainer_state.json"):
            (folder / name).write_text(name * step)
        mark_complete(folder)
    return tmp_path


def test_the_newest_checkpoint_is_that_of_the_most_steps(output):
    (output / "checkpoint-new").mkdir()
    assert newest_checkpoint(output).name == "checkpoint-10"


def test_a_checkpoint_that_was_not_written_to_its_end_is_not_used_and_goes(output):
    shutil.copytree(output / "checkpoint-10", output / "checkpoint-11")
    (output / "checkpoint-11" / COMPLETE).unlink()
    assert newest_checkpoint(output).name == "checkpoint-10"
    assert begin(output, {}, resume=True).name == "checkpoint-10"
    assert steps_of(output) == [9, 10]
    assert begin(output, {}, resume=False) is None
    assert steps_of(output) == []


def test_a_checkpoint_is_complete_when_all_of_it_is_on_disk(output, monkeypatch):
    """After a power cut there is what was synced, in the order in which it was."""
    folder, synced, true = output / "checkpoint-10", [], os.fsync
    (folder / COMPLETE).unlink()

    def fsync(handle: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{handle}")), (folder / COMPLETE).exists()))
        true(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    mark_complete(folder)
    before = {path for path, marked in synced if not marked}
    assert before == {folder, *(path for path in folder.iterdir() if path.name != COMPLETE)}
    assert [path for path, marked in synced if marked] == [folder, output]


def test_a_checkpoint_that_is_half_deleted_is_not_used(output, monkeypatch):
    def killed(folder: Path) -> None:
        (folder / "optimizer.pt").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_checkpoints(output, kept={output / "checkpoint-9"})
    assert newest_checkpoint(output).name == "checkpoint-9"
