"""An adapter beside the model on a CPU, in the place of vLLM's own computation, which is wrong there.

vLLM's takes an adapter for every token that is to have none too: their index -1 is, as Python reads it, the last
adapter (https://github.com/vllm-project/vllm/pull/48421). It also copies the adapter's weights for each token.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

THE_ADAPTER = 0  # its index; there is one


def add_low_rank(
    wrapper: "PunicaWrapperCPU",
    output: "Tensor",
    input: "Tensor",
    downs: Sequence["Tensor"],
    ups: Sequence["Tensor"],
    scale: float,
    widths: Sequence[int],
    **_,
) -> None:
    """output += scale · (input Aᵀ) Bᵀ for the adapter's tokens, part by part of the layer; other tokens stay untouched.

    In the place of `PunicaWrapperCPU.add_lora_linear`. output: [tokens, sum of widths], input: [tokens, in]; of each
    part down (A): [1, 1, rank, in], up (B): [1, 1, width, rank].
    """
    tokens = (wrapper.token_lora_indices == THE_ADAPTER).nonzero().flatten()
    if not len(tokens):
        return
    read = input[tokens]
    parts = output.split(list(widths), dim=-1)
    for part, down, up in zip(parts, downs, ups, strict=True):
        part[tokens] += scale * (read @ down[0, 0].T) @ up[0, 0].T
