"""What of an engine fits into a GPU's memory, reckoned from the model's shape: an estimate, nothing is run.

vLLM takes `gpu_memory` of the card. Of that it gives to the keys and values of prompts and replies what weights, the
largest step and its own buffers leave (vllm 0.32, v1/worker/gpu_worker.py and gpu_model_runner.py, `profile_run`).
"""

import math
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.files import read_json
from common.model_folder import tensor_shapes, weight_files

GIB = 1 << 30
BUFFERS = GIB  # CUDA's context, graphs and the allocator's gaps: about that for models of this size
SAMPLED_BYTES = 24  # of one logit while replies are drawn by seed: itself, sorted, its place, its chance, the noise


@dataclass(frozen=True)
class Shape:
    """A model's size: all in bytes, for 2-byte numbers (bfloat16, float16) or 4-byte ones (float32).

    `weights` of all of it; `per_token` of one token's keys and values; `step` and `drawn` what computing one token of
    a step, and drawing one token of a reply, holds for a moment.
    """

    weights: int
    per_token: int
    step: int
    drawn: int


def model_shape(model: Path, dtype: str) -> Shape:
    """The shape of the model in a folder (see `check_model_folder`), computed in `dtype`."""
    config = read_json(model / "config.json", dict)
    width = 4 if dtype == "float32" else 2
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    kept = 2 * config["num_hidden_layers"] * config.get("num_key_value_heads", heads) * head
    numbers = sum(math.prod(shape) for path in weight_files(model) for shape in tensor_shapes(path).values())
    return Shape(
        weights=width * numbers,
        per_token=width * kept,
        # the widest moment of a layer: gate and up projection, their product, and the hidden states around them
        step=width * (3 * config["intermediate_size"] + 4 * config["hidden_size"]),
        drawn=SAMPLED_BYTES * config["vocab_size"],
    )


@dataclass(frozen=True)
class Fit:
    """What an engine finds room for: GiB of `weights`, of `computing` and for `tokens` of prompts and replies."""

    weights: float
    computing: float
    left: float
    tokens: int


def fit(shape: Shape, card: float, share: float, batched_tokens: int, sequences: int) -> Fit:
    """Of `share` of a card with `card` GiB, when a step has `batched_tokens` and `sequences` replies are drawn."""
    computing = BUFFERS + max(batched_tokens * shape.step, sequences * shape.drawn)
    left = share * card * GIB - shape.weights - computing
    return Fit(shape.weights / GIB, computing / GIB, left / GIB, max(0, int(left / shape.per_token)))


def share_beside(other: Shape, card: float, share: float, tokens: int) -> float:
    """What of `share` of a card with `card` GiB another model, which computes `tokens` at a time, leaves to an engine.

    It is negative where not even the other model fits.
    """
    return share - (other.weights + BUFFERS + tokens * other.step) / (card * GIB)


def first_card() -> float | None:
    """GiB of the first GPU that CUDA_VISIBLE_DEVICES shows, as nvidia-smi says; None without a GPU, 0 when it does not
    say (of a part of a GPU, MIG, for example).
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = visible.split(",")[0].strip() if visible is not None else "0"
    if first in ("", "-1"):
        return None
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", first]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True)
        return float(answer.stdout.split()[0]) / 1024  # MiB
    except OSError:  # no nvidia-smi, so no GPU
        return None
    except (ValueError, IndexError):
        return 0.0


def fit_lines(found: Fit, card: float, share: float, context: int, usual: int, sequences: int) -> Iterator[str]:
    """The fit in words: `context` and `usual` are tokens of the longest and of a usual prompt with its reply."""
    yield (
        f"a GPU of {card:g} GiB, {share:g} of it for the engine: weights {found.weights:.1f}, computing about "
        f"{found.computing:.1f}, and {max(0.0, found.left):.1f} GiB for {found.tokens} tokens of prompts and replies"
    )
    if found.tokens < context:
        yield (
            f"too small for the longest context of {context} tokens: take a smaller --model or a larger GPU, or lower "
            "--max_num_seqs and --max_model_len"
        )
        return
    yield (
        f"room for {found.tokens // context} sequences of the longest context ({context} tokens), or for "
        f"{found.tokens // usual} of a usual prompt and reply ({usual} tokens), if they shared nothing (what prompts "
        f"begin with alike is kept once); {sequences} are written at once at most"
    )
