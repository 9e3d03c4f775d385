#!/usr/bin/env bash
# What training and scoring cost on this machine's GPU, measured with random weights of Qwen2.5-Coder-1.5B's
# configuration and made-up questions with prompts of 2,000 tokens:
#
#     bash bench/gpu_check.sh               # under nine minutes; ends in a Markdown table for docs/RESULTS.md
#     SIZE=tiny bash bench/gpu_check.sh     # a tiny model, on a CPU too: does it run?
#
# It needs no network, no vLLM and no database, only torch and transformers, and what the wheels in the folder WHEELS
# bring (default: wheels). They are installed into a folder of their own that goes away again. On a machine that has
# accelerate, pandas, pyarrow and xxhash, as most with torch and transformers do, these are the wheels (a machine with
# a network fetches them; give the Python version of the machine they are for):
#
#     pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#         --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
#         -d wheels trl==1.16.0 peft==0.21.2 datasets==5.2.0 dill==0.4.1 multiprocess==0.70.19
#
# What is missing after all is named in the first lines, before anything is measured.
#
# What each stage takes on an H100 (989 TFLOP/s in bfloat16, of which training reaches some 30 %), estimated. A frozen
# base with gradient checkpointing costs 6 x 1.31e9 floating-point operations a token: twice forward, once backward.
#     prepare     40 s   imports; weights are drawn on the GPU, 3 GB are written
#     training   120 s   8 questions, 64 pairs: TRL computes 270,000 tokens a step (7 to 15 s), packed 10,000 (under 1 s);
#                        3 rounds, and 9 times a model is loaded (5 s)
#     scoring    110 s   a third of the operations: in bfloat16 3 s a round pair by pair, 0.2 s packed; in float32, at some
#                        40 TFLOP/s, 20 s and 1 s; 3 rounds each
#     attention  150 s   passes of 4,000 to 10,000 tokens, under 1 s each; FlexAttention is compiled for up to a minute,
#                        once for the first length and once for all others
# A stage that takes longer than its limit below is stopped, and what it had measured by then is in the table.
#
# Logs and table are written to the folder gpu_check in OUT (default: output). Exit code: 0, also when stages failed (the
# table says so); 2 when nothing was measured.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SIZE=${SIZE:-1.5b}
WHEELS=${WHEELS:-wheels}
LOGS=${OUT:-output}/gpu_check
case $SIZE in
1.5b) questions=8 rounds=3 passes=(4 8 16) precisions=(bfloat16 float32) patience=1 ;;
tiny) questions=2 rounds=1 passes=(2) precisions=(float32) patience=10 ;; # on a busy CPU, too
*) echo "error: SIZE=$SIZE: must be 1.5b or tiny" >&2 && exit 2 ;;
esac
python=$(command -v python3 || command -v python) || { echo "error: no python3 here" >&2 && exit 2; }
scratch=$(mktemp -d) && mkdir -p "$LOGS" && rm -f "$LOGS"/*.log || exit 2
trap 'rm -rf "$scratch"' EXIT

# one GPU, as TRL wants it; no hub; each line at once, so that a stopped run leaves it
CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0}
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES%%,*} HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false

# stage NAME SECONDS COMMAND...: run it for so long at most and no longer than 520 s in all, its output on the screen and
# in a log
stage() {
    local name=$1 limit=$(($2 * patience)) left=$((520 * patience - SECONDS)) start=$SECONDS code=0
    shift 2
    ((limit < left)) || limit=$left
    if ((limit < 10)); then
        echo "STAGE $name: left out, no time was left" | tee "$LOGS/$name.log"
        return 1
    fi
    echo "--- $name"
    timeout -k 10 "$limit" "$@" 2>&1 | tee "$LOGS/$name.log" || code=$?
    case $code in
    0) echo "STAGE $name: $((SECONDS - start)) s" ;;
    124 | 137) echo "STAGE $name: stopped after $((SECONDS - start)) s" ;;
    *) echo "STAGE $name: failed after $((SECONDS - start)) s: $(grep -av '^FIGURE' "$LOGS/$name.log" | tail -n 1)" ;;
    esac | tee -a "$LOGS/$name.log"
    return "$code"
}

if compgen -G "$WHEELS/*.whl" >/dev/null; then
    stage 0_wheels 60 "$python" -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check \
        --target "$scratch/site" "$WHEELS"/*.whl || exit 2
    export PYTHONPATH=$scratch/site${PYTHONPATH:+:$PYTHONPATH}
fi
"$python" -c "import accelerate, datasets, peft, transformers, trl" ||
    { echo "error: a package is missing; the head of bench/gpu_check.sh says how to bring it along" >&2 && exit 2; }

stage 1_prepare 120 "$python" -m bench.gpu_check prepare "$scratch" --size "$SIZE" || exit 2
data=(--model "$scratch/model" --data "$scratch/pairs.json" --rounds "$rounds")
stage 2_training 210 "$python" -m bench.reward_training "${data[@]}" --questions "$questions"
for dtype in "${precisions[@]}"; do
    stage "3_scoring_$dtype" 110 "$python" -m bench.reward_scoring "${data[@]}" --questions "$questions" --dtype "$dtype"
done
stage 4_attention 200 "$python" -m bench.packed_attention "${data[@]}" --questions "${passes[@]}"
echo
"$python" -m bench.gpu_check table "$LOGS" --of "SIZE=$SIZE bash bench/gpu_check.sh" | tee "$LOGS/table.md"
