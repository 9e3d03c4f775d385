"""Who starts train.py: the GPUs that the caller shows, and the caller's own configuration of accelerate."""

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.files import InputError, write_json
from reward.launch import UNUSED, check_accelerate, use_one_gpu
from reward.model import load_reward_model, score
from tests.builders import train, training
from tests.conftest import run_script

GPU = "GPU {0}: NVIDIA H100 80GB HBM3 (UUID: GPU-{0}00-aa)"
MIG = "  MIG 1g.10gb     Device  {0}: (UUID: MIG-{0}00-aa)"


@pytest.fixture
def alone(monkeypatch):
    """No launcher, and nothing of accelerate's configuration."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")] + ["LOCAL_RANK", "RANK"]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Sets what `nvidia-smi -L` prints here; without lines there is no nvidia-smi."""

    def machine(*lines: str) -> None:
        if lines:
            program = tmp_path / "nvidia-smi"
            program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}")  # with /bin/sh by its full name
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return machine


@pytest.mark.parametrize(
    ("shown", "left"),
    [
        ("2,3", "2"),
        (" 2 , 3", "2"),
        ("7,0,1,-1,4", "7"),
        ("GPU-8932f937-aa,GPU-1,GPU-2", "GPU-8932f937-aa"),
        ("MIG-1,MIG-2", "MIG-1"),
        ("3", None),
        ("MIG-GPU-8932f937/1/0", None),
        ("", None),
        ("-1", None),
        ("-1,2,3", None),
        ("5,-1,3", None),
        ("NoDevFiles", None),
    ],
)
def test_of_the_gpus_shown_the_first_is_used(alone, monkeypatch, capsys, shown, left):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    use_one_gpu("train.py")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == (shown if left is None else left)
    printed = capsys.readouterr().out
    assert printed.count("\n") == (left is not None)
    assert left is None or (f"({left})" in printed and "accelerate launch train.py" in printed)


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([GPU.format(0), GPU.format(1), GPU.format(2)], "0"),
        ([GPU.format(0), MIG.format(0), MIG.format(1), GPU.format(1)], "0"),
        ([GPU.format(0)], None),
        (["No devices were found"], None),
        ([], None),
    ],
)
def test_where_the_caller_says_nothing_the_machine_is_asked(alone, machine, capsys, lines, left):
    machine(*lines)
    use_one_gpu("train.py")
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == left
    count = sum(line.startswith("GPU") for line in lines)
    assert (f"first of {count} GPUs" in capsys.readouterr().out) == (left is not None)


@pytest.mark.parametrize("shown", [None, "2,3"])
def test_a_launcher_shares_the_gpus_out_itself(alone, machine, monkeypatch, capsys, shown):
    machine(GPU.format(0), GPU.format(1))
    monkeypatch.setenv("LOCAL_RANK", "1")
    if shown:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    use_one_gpu("train.py")
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == shown and not capsys.readouterr().out


ASKED = """
import os, runpy, sys

class Watch:  # who asks for torch must find the GPU chosen
    def find_spec(self, name, *_):
        if name in ("torch", "accelerate", "transformers"):
            print("imported with", os.environ["CUDA_VISIBLE_DEVICES"])
            sys.exit(7)

sys.meta_path.insert(0, Watch())
sys.argv = sys.argv[1:]
runpy.run_path("train.py", run_name="__main__")
"""


def test_the_gpu_is_chosen_before_torch_is_imported(tiny_model, pair_rows, tmp_path):
    (tmp_path / "pairs.json").write_text(json.dumps(pair_rows))
    flags = ("--model_id", tiny_model, "--data_path", tmp_path / "pairs.json", "--output_dir", tmp_path / "adapter")
    run = run_script("-c", ASKED, "train.py", *flags, CUDA_VISIBLE_DEVICES="3,1")
    assert run.returncode == 7, run.stderr
    assert [line.split(";")[0] for line in run.stdout.splitlines()] == [
        "using the first of 2 GPUs (3)",
        "imported with 3",
    ]
    assert not (tmp_path / "adapter").exists()


# --- accelerate's configuration -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", UNUSED)
@pytest.mark.parametrize("value", ["true", "True", "1", "INDUCTOR", "false", "NO", ""])
def test_what_packed_questions_do_not_train_with_is_refused(alone, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    if value in ("false", "NO", ""):
        return check_accelerate("train.py")
    with pytest.raises(InputError, match=f"{variable}.*accelerate launch"):
        check_accelerate("train.py")


def test_mixed_precision_is_warned_of_once(alone, monkeypatch, capsys):
    for value, rank, lines in (("no", "0", 0), ("bf16", "0", 1), ("fp8", "0", 1), ("bf16", "1", 0)):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", value)
        monkeypatch.setenv("RANK", rank)
        check_accelerate("train.py")
        printed = capsys.readouterr().out
        assert printed.count("\n") == printed.count("warning: ") == printed.count(value) == lines or value == "no"


CONFIG = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_CPU
num_processes: 1
num_machines: 1
use_cpu: true
"""


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("dynamo_config:\n  dynamo_backend: INDUCTOR\n", "ACCELERATE_DYNAMO_BACKEND"),
        ("distributed_type: FSDP\nfsdp_config: {}\nuse_cpu: false\n", "FSDP"),
    ],
)
def test_a_configuration_file_that_cannot_be_used_is_one_line(tmp_path, more, words):
    (tmp_path / "accelerate.yaml").write_text(CONFIG + more)
    launch = ("-m", "accelerate.commands.launch", "--config_file", tmp_path / "accelerate.yaml", "train.py")
    run = run_script(*launch, CUDA_VISIBLE_DEVICES="")
    assert run.returncode and f"{words}" in next(
        line for line in run.stderr.splitlines() if line.startswith("error: accelerate is configured")
    ), run.stderr


# --- several processes ----------------------------------------------------------------------------------------------

MIXED = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
num_machines: 1
num_processes: 2
mixed_precision: bf16
"""


def launchers(machines: int, folder) -> list[tuple[str, ...]]:
    """The commands that start two processes: on one machine, whose user configured mixed precision, or one on each of
    two with the example file."""
    launch = ("-m", "accelerate.commands.launch", "--num_processes", "2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = ("--main_process_ip", "127.0.0.1", "--main_process_port", str(server.getsockname()[1]))
    if machines == 1:
        (folder / "mixed.yaml").write_text(MIXED)
        return [(*launch, "--config_file", str(folder / "mixed.yaml"), *place, "train.py")]
    example = ("--config_file", "accelerate_multi_node.yaml")
    return [(*launch, *example, *place, "--machine_rank", str(rank), "train.py") for rank in range(machines)]


@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes_train_as_one(tmp_path, tiny_model, pair_rows, machines):
    """Two processes with one question each are one with two; three questions validate, with 1 or 2 pairs.

    An epoch has five questions: in its last step one process has none. The third step begins the second epoch.
    """
    rows = [row | {"question_id": row["question_id"] + 6} for row in pair_rows[:4]]
    rows = [row | {"prompt": [{"role": "user", "content": f"Why {row['question_id']}?"}]} for row in rows]
    write_json(tmp_path / "pairs.json", [*pair_rows, *rows[:-1]])
    flags = ("--batch_size", "1", "--lora_dropout", "0", "--max_steps", "5", "--validation_fraction", "0.4")
    one = train(tmp_path, tiny_model, *flags, "--gradient_accumulation", "2")
    assert one.returncode == 0, one.stderr
    (tmp_path / "adapter").rename(tmp_path / "one")
    words = training(tmp_path, tiny_model, *flags)
    with ThreadPoolExecutor() as threads:
        for run in threads.map(
            lambda launch: run_script(*launch, *words, CUDA_VISIBLE_DEVICES=""), launchers(machines, tmp_path)
        ):
            assert run.returncode == 0, run.stderr
            warned = run.stdout.count("warning: accelerate is configured for mixed precision (bf16)")
            assert warned == (machines == 1)
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "adapter")]
    histories = [of["history"] for of in metrics]
    assert "training pairs of 5 questions" in one.stdout and metrics[0]["steps"] == metrics[1]["steps"] == 5
    for key in ("loss", "accuracy", "margin", "num_tokens", "eval_loss", "eval_accuracy", "eval_accuracy_sibling"):
        found = [[entry[key] for entry in history if key in entry] for history in histories]
        assert found[0] and found[1] == pytest.approx(found[0], abs=1e-4), key
    asked = [("How many?", ["SELECT 1", "SELECT COUNT(*) FROM product"])]
    scores = [score(*load_reward_model(tiny_model, tmp_path / name, "float32"), asked) for name in ("one", "adapter")]
    assert scores[1][0] == pytest.approx(scores[0][0], rel=1e-3)
