"""Which precision a machine gets when the user leaves it open."""

import pytest
import torch

from common.precision import fast_dtype


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx2": True, "avx512_bf16": False}, "float32"),
    ],
)
def test_a_cpu_without_instructions_for_bfloat16_computes_in_float32(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fast_dtype() == expected
