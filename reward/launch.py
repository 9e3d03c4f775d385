"""How a script was started: network, the GPUs that its caller shows, what accelerate is configured for, what is here.

CUDA reads CUDA_VISIBLE_DEVICES when it is first asked something, so `use_one_gpu` comes before that, without torch.
"""

import os
import subprocess
from itertools import takewhile

from common.files import InputError

OFF = ("", "0", "false", "f", "no", "n", "off")
# what `accelerate launch` exports of the user's configuration, and what that would do
UNUSED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context or sequence parallelism",
    "ACCELERATE_DYNAMO_BACKEND": "a compiled model",
}
LAUNCH = "accelerate launch"


def stay_offline() -> None:
    """Models are folders here: ask no model hub, and tell no library's makers of this run. To be called before imports.

    A caller's own HF_HUB_OFFLINE and HF_HUB_DISABLE_TELEMETRY are kept.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def is_first_process() -> bool:
    """Whether this process writes and speaks for the others, if a launcher started several."""
    return os.environ.get("RANK", "0") == "0"


def use_one_gpu(script: str) -> None:
    """Without a launcher, leave this process the first of the GPUs that it is shown, and say so.

    `script` is what a launcher would start. Several in one process would be used as DataParallel, which TRL refuses.
    """
    if "LOCAL_RANK" in os.environ:
        return
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = _installed_gpus() if shown is None else _named_gpus(shown)
    if len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]
        print(f"using the first of {len(gpus)} GPUs ({gpus[0]}); for all of them: {LAUNCH} {script}")


def _named_gpus(value: str) -> list[str]:
    """Numbers, UUIDs and MIG names in a CUDA_VISIBLE_DEVICES; as CUDA does, none behind one that is nothing of that."""
    names = [name.strip() for name in value.split(",")]
    return list(takewhile(lambda name: name.isdigit() or name.startswith(("GPU-", "MIG-")), names))


def _installed_gpus() -> list[str]:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    except OSError:  # no such program, so no GPU
        return []
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(number) for number in range(count)]


def check_accelerate(script: str) -> None:
    """Warn of mixed precision in the user's configuration of accelerate, which the script overrides.

    Raises InputError for what it does not train with.
    """
    for variable, what in UNUSED.items():
        value = os.environ.get(variable, "")
        if value.lower() not in OFF:
            raise InputError(
                f"accelerate is configured for {what} ({variable}={value}), which {script} does not use; launch with a "
                f"configuration without it: {LAUNCH} --config_file FILE {script}"
            )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision.lower() != "no" and is_first_process():
        print(
            f"warning: accelerate is configured for mixed precision ({precision}), which is not used: it would change "
            "the loss; BASE_DTYPE is the precision of the base, LoRA and head are in float32"
        )


def check_machine(script: str, report_to: str, flex_attention: bool = False) -> None:
    """Raise InputError for what this machine cannot do."""
    import torch
    from transformers.integrations import get_available_reporting_integrations

    known = ["none", *get_available_reporting_integrations()]
    for name in report_to.split(","):
        if name.strip() not in known:
            raise InputError(
                f"--report_to {report_to}: {name.strip()!r} is not installed; there is: {', '.join(known)}"
            )
    if flex_attention and not torch.cuda.is_available():
        raise InputError("--flex_attention true: PyTorch trains with it on a GPU only, and there is none here")
    if "LOCAL_RANK" not in os.environ and torch.cuda.device_count() > 1:  # without nvidia-smi they were not counted
        raise InputError(f"several GPUs are visible: set CUDA_VISIBLE_DEVICES=0, or use all: {LAUNCH} {script}")
