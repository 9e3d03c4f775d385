"""A model folder on disk: is it complete, which model is it, and in which precision is it computed fast?

python -m common.model_folder Qwen2.5-Coder-0.5B-Instruct     # exit code 0 when complete, else 2 and the reason
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from common.files import InputError, read_json, refuse_lfs_pointer, run_script

FIX = "fetch it with `bash download_model.sh` (or --small), or name another folder"
ARCHITECTURE = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)


def _safetensors_header(path: Path) -> tuple[int, dict]:
    """Length of the header in bytes and the header (name -> dtype, shape, data_offsets) of a safetensors file.

    Format: 8 bytes little-endian header length, the header as JSON, then the data
    (https://huggingface.co/docs/safetensors, "Format").
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < 100_000_000:
            raise InputError(f"{path}: not a safetensors file; {FIX}")
        return length, json.loads(file.read(length))


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Name -> shape of every tensor of a safetensors file, without reading the tensors."""
    return {name: entry["shape"] for name, entry in _safetensors_header(path)[1].items() if name != "__metadata__"}


def _check_weights_whole(path: Path) -> None:
    try:
        length, header = _safetensors_header(path)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted = 8 + length + max(ends)
    except (ValueError, TypeError, AttributeError, LookupError):  # not JSON, another shape, no tensors
        raise InputError(f"{path}: broken header; {FIX}") from None
    if path.stat().st_size != wanted:
        raise InputError(f"{path}: {path.stat().st_size} bytes where its header says {wanted}; {FIX}")


def weight_files(folder: Path) -> list[Path]:
    """The files with a model's weights, there or not."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        refuse_lfs_pointer(index)
        places = read_json(index, dict).get("weight_map")
        if not isinstance(places, dict):
            raise InputError(f"{index}: no weight_map; {FIX}")
        return sorted({folder / str(name) for name in places.values()})
    return [folder / "model.safetensors"]


def check_model_folder(path: str | os.PathLike) -> Path:
    """The folder, when it holds config, tokenizer and every weight file at full length.

    Raises InputError naming what is missing, or only a Git LFS pointer, and how to get it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder; {FIX}")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing; {FIX}")
        refuse_lfs_pointer(folder / name)
    for weights in weight_files(folder):
        if not weights.is_file():
            raise InputError(f"{weights}: missing; {FIX}")
        refuse_lfs_pointer(weights)
        _check_weights_whole(weights)
    return folder


def architecture(path: str | os.PathLike) -> dict:
    """The numbers of config.json that an adapter must agree with."""
    config = read_json(Path(path) / "config.json", dict)
    return {key: config.get(key) for key in ARCHITECTURE}


def model_fingerprint(path: str | os.PathLike) -> str:
    """16 hex digits that tell models apart: architecture, tensor shapes and the first MiB of weights of each file.

    Not a checksum of the weights (that would read gigabytes); enough to refuse an adapter trained on another base.
    """
    digest = hashlib.sha256(json.dumps(architecture(path), sort_keys=True).encode())
    for weights in weight_files(Path(path)):
        length, header = _safetensors_header(weights)
        header.pop("__metadata__", None)
        digest.update(json.dumps(header, sort_keys=True).encode())
        with weights.open("rb") as file:
            file.seek(8 + length)
            digest.update(file.read(1 << 20))
    return digest.hexdigest()[:16]


def fast_dtype() -> str:
    """The precision where the user leaves it open: bfloat16 where this machine has instructions for it, else float32.

    Those of its GPU count, or without one of its CPU, which without them is several times slower than in float32.
    """
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    can = torch.cpu.get_capabilities()
    return "bfloat16" if can.get("avx512_bf16") or can.get("amx_bf16") or can.get("bf16") else "float32"


def main(words: list[str] | None = None) -> None:
    folders = sys.argv[1:] if words is None else words
    if len(folders) != 1:
        raise InputError("usage: python -m common.model_folder FOLDER")
    check_model_folder(folders[0])


if __name__ == "__main__":
    run_script(main)
