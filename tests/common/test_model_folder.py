"""Model folders that only look complete (Git LFS pointers, an index without weights), and the fast precision."""

import json
import shutil

import pytest
import torch

from common.files import InputError
from common.model_folder import check_model_folder, fast_dtype
from tests.conftest import assert_one_line_error, run_script

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb\nsize 11421896\n"


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A complete model whose weights stand in a file that an index names."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    check_model_folder(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json", "part.safetensors"],
)
def test_a_pointer_is_named_with_the_command_that_fetches_the_file(folder, name):
    for pointer in (POINTER, POINTER.replace("\n", "\r\n"), "version https://hawser.github.com/spec/v1\noid sha256:0"):
        (folder / name).write_text(pointer, newline="")
        with pytest.raises(InputError, match=rf"{name}: a Git LFS pointer.*`git lfs pull` in .*model$"):
            check_model_folder(folder)


def test_a_pointer_is_one_line(folder):
    (folder / "tokenizer.json").write_text(POINTER)
    assert_one_line_error(run_script("-m", "common.model_folder", folder), "tokenizer.json", "git lfs pull")


@pytest.mark.parametrize("content", ["{}", '{"weight_map": null}', '{"weight_map": ["part.safetensors"]}'])
def test_an_index_without_weights(folder, content):
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match=r"index\.json: no weight_map; fetch it"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    "header", ["[]", "{}", '{"a": 1}', '{"a": {"data_offsets": []}}', "{", '{"a": {"data_offsets": [0, 9]}}']
)
def test_weights_with_a_broken_header(folder, header):
    (folder / "part.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(InputError, match="part.safetensors: (broken header|.* bytes where)"):
        check_model_folder(folder)


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
