"""In which precision a model is computed when the user leaves it open."""


def fast_dtype() -> str:
    """bfloat16 where this machine's GPU, or without one its CPU, has instructions for it; else float32.

    A CPU without them computes bfloat16 several times slower than float32.
    """
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    can = torch.cpu.get_capabilities()
    return "bfloat16" if can.get("avx512_bf16") or can.get("amx_bf16") or can.get("bf16") else "float32"
