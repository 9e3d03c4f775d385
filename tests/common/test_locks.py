"""Locks of folders: who works there is named, the dead hold nothing, and where there are no locks a warning says so."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from common.files import InputError
from common.locks import alone_in, among_as_many
from tests.conftest import ROOT

# works in a folder until it is killed
HOLDER = """
import sys, time
from pathlib import Path
from common import locks
with getattr(locks, sys.argv[1])(Path(sys.argv[2]), *map(int, sys.argv[3:])):
    print("in", flush=True)
    time.sleep(60)
"""
# ends while its child is there
PARENT = """
import os, sys, time
from pathlib import Path
from common.locks import alone_in
with alone_in(Path(sys.argv[1])):
    child = os.fork() or time.sleep(60) or os._exit(0)
    print(child, flush=True)
    os._exit(0)
"""


def start(program: str, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def hold(tmp_path):
    """Starts a process that works in tmp_path; gives it when it does."""
    started = []

    def holding(lock: str, *numbers: int) -> subprocess.Popen:
        started.append(process := start(HOLDER, lock, tmp_path, *numbers))
        assert process.stdout.readline() == "in\n"
        return process

    yield holding
    for process in started:
        process.kill()
        process.wait()


def test_who_works_in_a_folder_is_named_and_the_dead_hold_nothing(tmp_path, hold):
    process = hold("alone_in")
    with pytest.raises(InputError, match=f"process {process.pid} on .* works here"), alone_in(tmp_path):
        pass
    process.kill()
    process.wait()
    with alone_in(tmp_path):
        pass


def test_several_work_with_one_number_of_shards(tmp_path, hold):
    processes = [hold("among_as_many", 2), hold("among_as_many", 2)]
    for process in processes:
        with among_as_many(tmp_path, 2):
            pass
        with pytest.raises(InputError, match="a run with --num_shards 2 works here"), among_as_many(tmp_path, 3):
            pass
        process.kill()
        process.wait()
    with among_as_many(tmp_path, 3):
        pass


def test_the_children_of_a_process_do_not_hold_its_lock(tmp_path):
    parent = start(PARENT, tmp_path)
    child = int(parent.stdout.readline())
    try:
        parent.wait()
        with alone_in(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch, capsys):
    def none(*_) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with alone_in(tmp_path / "part0"), among_as_many(tmp_path, 2):
        pass
    assert "part0/lock: no locks here (No locks available); never start" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="check --output_dir"), alone_in(tmp_path / "file" / "part0"):
        pass
