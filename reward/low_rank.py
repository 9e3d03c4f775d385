"""LoRA's linear layers (peft) with less memory and traffic, in the base model's precision.

PEFT casts what a layer reads to the float32 of LoRA's weights, once for each of the layers that read it, keeps the
copies for the backward pass, and scales and adds what LoRA writes in float32, at the full width of the layer. On a
bfloat16 base that was a quarter of a training step's memory, and on a CPU 40 % of its time
(docs/log/2026-11-25-packing.md). Here the weights stay float32, but are rounded to the base's dtype where they are
used, as mixed precision does (Micikevicius et al., arXiv 1710.03740): the layer's output is rounded to it in any case.
The scale is applied to a factor, where it costs nothing.
Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, eq. 3.

Covered: plain LoRA on linear layers, any number of active adapters, dropout, merged and disabled adapters (which PEFT
computes itself). Not covered: its variants (DoRA, …) and quantised bases, whose layers stay PEFT's.
"""

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import Linear


class AddLowRank(torch.autograd.Function):
    """output + scale · (input Aᵀ) Bᵀ, written over `output`, computed in its dtype.

    output: [..., out], input: [..., in], down (A): [rank, in], up (B): [out, rank].
    """

    @staticmethod
    def forward(ctx, output: Tensor, input: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        narrow_down, narrow_up = (scale * down).to(input.dtype), up.to(input.dtype)
        inner = input.flatten(0, -2) @ narrow_down.T
        output.view(-1, output.shape[-1]).addmm_(inner, narrow_up.T)  # a view, or an error: never a copy
        ctx.save_for_backward(input, inner, narrow_down, narrow_up)
        ctx.scale = scale
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        input, inner, down, up = ctx.saved_tensors
        of_output = gradient.flatten(0, -2)
        of_inner = of_output @ up
        of_up = (of_output.T @ inner).float()
        of_down = ctx.scale * (of_inner.T @ input.flatten(0, -2)).float()
        return gradient, (of_inner @ down).view_as(input), of_down, of_up, None


def lean_forward(layer: "Linear", input: Tensor, *arguments, **named) -> Tensor:
    """In the place of `forward` of one of PEFT's linear layers."""
    if layer.disable_adapters or layer.merged or arguments or named:
        return type(layer).forward(layer, input, *arguments, **named)
    output = layer.base_layer(input)
    for name in filter(layer.lora_A.__contains__, layer.active_adapters):
        factors = layer.lora_A[name].weight, layer.lora_B[name].weight
        output = AddLowRank.apply(output, layer.lora_dropout[name](input), *factors, layer.scaling[name])
    return output


def make_lean(model: "PeftModel") -> "PeftModel":
    """The model itself, its plain LoRA layers computed by `lean_forward`."""
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if type(layer) is Linear and type(layer.base_layer) is nn.Linear and not layer.lora_variant:
            layer.forward = partial(lean_forward, layer)
    return model
