#!/usr/bin/env bash
# Grow revision trees as a Slurm job array (step 4.1), a shard and a GPU for each job:  sbatch tree/cluster/run_slurm.sh
# Submit it from the project's folder, which all machines share. Further flags go to each worker; with other shards:
#     SHARDS=64 sbatch --array=0-63 tree/cluster/run_slurm.sh --model Qwen2.5-Coder-1.5B-Instruct --num_roots 16
# The same command resumes what is unfinished, for some shards with --array=3,7. Then: python -m tree.merge_shards
#SBATCH --job-name=trees
#SBATCH --array=0-15
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm_shard_%a.log
set -euo pipefail

SHARDS=${SHARDS:-16}    # shards of the questions; --array=0-15 must name them
RESTARTS=${RESTARTS:-3} # how often a worker that dies is started again
PAUSE=${PAUSE:-10}      # seconds before that

[ -n "${SLURM_ARRAY_TASK_ID:-}" ] || { echo "error: no job of an array; submit it with sbatch tree/cluster/run_slurm.sh" >&2; exit 2; }
cd "$SLURM_SUBMIT_DIR" # Slurm runs a copy of this script from a folder of its own
PYTHON=python
[ -x .venv/bin/python ] && PYTHON=.venv/bin/python

AGAIN=() # flags without --fresh, which would begin anew instead of resuming
for flag in "$@"; do [ "$flag" = --fresh ] || AGAIN+=("$flag"); done
((${SLURM_RESTART_COUNT:-0} == 0)) || set -- ${AGAIN[@]+"${AGAIN[@]}"}

for ((start = 0; start <= RESTARTS; start++)); do
    code=0
    "$PYTHON" -m tree.run_pipeline "$@" --shard_id "$SLURM_ARRAY_TASK_ID" --num_shards "$SHARDS" || code=$?
    case $code in 0 | 2 | 130 | 143) break ;; esac # done, wrong input, stopped by hand
    echo "warning: shard $SLURM_ARRAY_TASK_ID died with exit code $code" >&2
    set -- ${AGAIN[@]+"${AGAIN[@]}"}
    sleep "$PAUSE"
done
exit "$code"
