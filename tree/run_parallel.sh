#!/usr/bin/env bash
# Grow revision trees on every GPU of this machine (step 4.1):  bash tree/run_parallel.sh
# One worker per GPU that CUDA_VISIBLE_DEVICES shows (all when it is not set), each with its own shard of the questions;
# without a GPU, NUM_WORKERS workers on the CPU.
# Every setting can be given as an environment variable of the same name; further flags go to each worker, for example
#     NUM_GPUS=2 NUM_ROOTS=16 bash tree/run_parallel.sh --limit 100
# After a kill or Ctrl-C the same command resumes; with --fresh it begins anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# --------------------------------------------------------------------------------------------------
NUM_GPUS=${NUM_GPUS:-}                                                      # GPUs to use ("" = all that are visible, 0 = the CPU)
NUM_WORKERS=${NUM_WORKERS:-1}                                               # CPU workers when there is no GPU
MODEL_PATH=${MODEL_PATH:-Qwen2.5-Coder-3B-Instruct}                         # generator
DATA_PATH=${DATA_PATH:-data/train/train.json}                               # questions with ids
DB_ROOT=${DB_ROOT:-data/train/train_databases}                              # databases
OUTPUT_DIR=${OUTPUT_DIR:-output}                                            # what is written
MAX_DEPTH=${MAX_DEPTH:-3}                                                   # levels of a tree
NUM_ROOTS=${NUM_ROOTS:-8}                                                   # first attempts at a question
SAMPLE_NUM=${SAMPLE_NUM:-2}                                                 # revisions of each wrong query
MAX_NODES=${MAX_NODES:-24}                                                  # queries of a tree at most (0 = no bound)
REVISION=${REVISION:-facts}                                                 # what a revision is shown: facts, query or chat
REVISER=${REVISER:-}                                                        # folder of a reviser ("" = the generator revises)
TEMPERATURE=${TEMPERATURE:-0.8}                                             # sampling temperature
TOP_K=${TOP_K:-20}                                                          # draw among so many likeliest tokens (0 = all)
SQL_TIMEOUT=${SQL_TIMEOUT:-30}                                              # seconds per query
SEED=${SEED:-0}                                                             # run seed
RESTARTS=${RESTARTS:-3}                                                     # how often a worker that dies is started again
# --------------------------------------------------------------------------------------------------

PYTHON=python
[ -x .venv/bin/python ] && PYTHON=.venv/bin/python

[[ ${NUM_GPUS:-0} =~ ^[0-9]+$ && $NUM_WORKERS =~ ^[1-9][0-9]*$ && $RESTARTS =~ ^[0-9]+$ ]] || {
    echo "error: NUM_GPUS=$NUM_GPUS, NUM_WORKERS=$NUM_WORKERS, RESTARTS=$RESTARTS must be whole numbers (NUM_WORKERS from 1)" >&2
    exit 2
}

# The GPUs that the caller shows: numbers, UUIDs or MIG names, -1 ends the list as it does for CUDA; else those of the
# machine. Where there is no nvidia-smi the caller is believed.
FOUND=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
ALL=$(seq -s, 0 $(((FOUND > 0 ? FOUND : ${NUM_GPUS:-0}) - 1)))
IFS=', ' read -ra NAMED <<<"${CUDA_VISIBLE_DEVICES-$ALL}"
DEVICES=()
for name in ${NAMED[@]+"${NAMED[@]}"}; do
    [ "$name" != -1 ] || break
    if [[ $name =~ ^[0-9]+$ ]] && ((FOUND > 0 && name >= FOUND)); then
        echo "error: CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES: there is no GPU $name, nvidia-smi lists $FOUND" >&2
        exit 2
    fi
    DEVICES+=("$name")
done
NUM_GPUS=${NUM_GPUS:-${#DEVICES[@]}}
if ((NUM_GPUS > ${#DEVICES[@]})); then
    echo "error: NUM_GPUS=$NUM_GPUS, but ${#DEVICES[@]} are visible (CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-not set}, nvidia-smi lists $FOUND)" >&2
    exit 2
fi
SHARDS=$((NUM_GPUS > 0 ? NUM_GPUS : NUM_WORKERS))

mkdir -p "$OUTPUT_DIR/logs"
exec 9>"$OUTPUT_DIR/logs/lock"
flock -n 9 || { echo "error: another run_parallel.sh writes to $OUTPUT_DIR; wait for it, or give another OUTPUT_DIR" >&2; exit 2; }

AGAIN=() # flags without --fresh, which would begin anew instead of resuming
for flag in "$@"; do [ "$flag" = --fresh ] || AGAIN+=("$flag"); done
HINT=$(((${#AGAIN[@]} < $#)) && echo " without --fresh" || true)
pids=()
trap 'trap - INT TERM HUP; stop_all; exit 130' INT TERM HUP
# each worker leads a process group, so that its engine and SQL processes end with it
stop_all() {
    echo "interrupted: stopping ${#pids[@]} worker(s)" >&2
    for pid in "${pids[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
    sleep 2
    for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
    echo "finished questions are kept; to resume, run the same command again$HINT" >&2
}

worker() { # shard, flags
    local device=""
    ((NUM_GPUS > 0)) && device=${DEVICES[$1]}
    CUDA_VISIBLE_DEVICES=$device exec setsid "$PYTHON" -m tree.run_pipeline \
        --data "$DATA_PATH" --db_root "$DB_ROOT" --model "$MODEL_PATH" --output_dir "$OUTPUT_DIR" \
        --shard_id "$1" --num_shards "$SHARDS" --max_depth "$MAX_DEPTH" \
        --num_roots "$NUM_ROOTS" --sample_num "$SAMPLE_NUM" --max_nodes "$MAX_NODES" --revision "$REVISION" \
        --reviser "$REVISER" --temperature "$TEMPERATURE" --top_k "$TOP_K" --sql_timeout "$SQL_TIMEOUT" --seed "$SEED" "${@:2}" 9>&-
}

log_of() { echo "$OUTPUT_DIR/logs/shard_$1.log"; }

start() { # shard, flags
    if ((SHARDS == 1)); then # a single worker also shows its progress here
        worker "$@" > >(exec tee -a "$(log_of "$1")" 9>&-) 2>&1 &
    else
        worker "$@" >>"$(log_of "$1")" 2>&1 &
    fi
    pids[$1]=$!
}

echo "$SHARDS worker(s) on $([ "$NUM_GPUS" -gt 0 ] && echo "GPU ${DEVICES[*]:0:NUM_GPUS}" || echo CPU), logs in $OUTPUT_DIR/logs"
restarts=()
for ((shard = 0; shard < SHARDS; shard++)); do
    restarts+=(0)
    : >"$(log_of "$shard")"
    start "$shard" "$@"
done

failed=() wrong_input=0 # failed by shard, so that they are told in their order, not in that of their ends
ended() { # shard, exit code: start it again, or take it off the list
    case $2 in
    0)
        ((SHARDS == 1)) || tail -n 1 "$(log_of "$1")"
        ;;
    2 | 130 | 143) # wrong input, stopped by hand
        failed[$1]=$1
        (($2 != 2)) || wrong_input=1
        ;;
    *)
        if ((restarts[$1] < RESTARTS)); then
            restarts[$1]=$((restarts[$1] + 1))
            echo "warning: shard $1 died with exit code $2; start ${restarts[$1]} of $RESTARTS more" >&2
            start "$1" ${AGAIN[@]+"${AGAIN[@]}"}
            return
        fi
        failed[$1]=$1
        ;;
    esac
    if (($2)); then
        echo "error: shard $1 failed with exit code $2; the end of $(log_of "$1"):" >&2
        tail -n 5 "$(log_of "$1")" >&2
        # and, where it died of vLLM, what that said last: its processes tell why they end long before the end of the log
        grep -a ' ERROR ' "$(log_of "$1")" | tail -n 1 >&2 || true
    fi
    unset "pids[$1]"
}

while ((${#pids[@]})); do
    sleep 0.5 &
    wait $!
    for shard in "${!pids[@]}"; do
        kill -0 "${pids[$shard]}" 2>/dev/null && continue
        code=0
        wait "${pids[$shard]}" || code=$?
        ended "$shard" "$code"
    done
done

# which is there when a worker got that far
[ ! -d "$OUTPUT_DIR/tree_dataset" ] || "$PYTHON" -m tree.run_table --output_dir "$OUTPUT_DIR" || true
if ((${#failed[@]})); then
    said="error: ${#failed[@]} of $SHARDS shards failed: ${failed[*]}"
    ((!wrong_input)) || { echo "$said; put right what is said above" >&2 && exit 2; }
    echo "$said; the same command$HINT resumes with what is missing" >&2
    exit 1
fi
[[ " $* " == *" --dry_run "* || " $* " == *" --no_gold "* ]] || # which write no pairs
    echo "all $SHARDS shard(s) done: $OUTPUT_DIR/final_data_emerge_shard_*.json, $OUTPUT_DIR/final_data_baseline_shard_*.json"
