#!/usr/bin/env bash
# The whole pipeline on a fresh machine, small:  bash quickstart.sh
# Environment, bundled demo data, a 0.5B model, then steps 2 to 7 of the README with the README's own scripts.
# About ten minutes on two CPU cores after the downloads; a second run reuses environment, data, model and results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# --------------------------------------------------------------------------------------------------
LIMIT=${LIMIT:-45}           # questions (0 = all of the demo)
MAX_DEPTH=${MAX_DEPTH:-2}    # levels of a tree
NUM_ROOTS=${NUM_ROOTS:-8}    # first attempts at a question
SAMPLE_NUM=${SAMPLE_NUM:-2}  # revisions of each wrong query
MAX_STEPS=${MAX_STEPS:-16}   # optimiser steps of 4 questions
# --------------------------------------------------------------------------------------------------

MODEL=Qwen2.5-Coder-0.5B-Instruct
DATA=data/demo/train.json
DB_ROOT=data/demo/train_databases
ADAPTER=qwen-reward-model-sql-train
LOGS=output/logs/quickstart
number=0

stage() { # title, command...
    local title=$1 log start=$SECONDS
    shift
    number=$((number + 1))
    log=$LOGS/$number.log
    mkdir -p "$LOGS"
    printf '\n=== %d. %s\n    %s\n' "$number" "$title" "$*"
    if ! "$@" 2>&1 | tee "$log"; then
        printf '\nerror: stage %d (%s) failed after %d s; its log is %s\n' "$number" "$title" $((SECONDS - start)) "$log" >&2
        exit 1
    fi
    printf '=== %d. %s: done in %d s\n' "$number" "$title" $((SECONDS - start))
}

# Results of real data lie in the same places as those of the demo; never write over them.
refuse_real_results() {
    if [ -e final_data_train.json ] && [ "$(cksum <final_data_train.json)" != "$(cat output/.quickstart 2>/dev/null)" ]; then
        echo "error: final_data_train.json is not from a quickstart; move your results away first" >&2
        exit 2
    fi
}

# one GPU is enough, if the caller shows any
GPUS=$([[ ${CUDA_VISIBLE_DEVICES-all} =~ ^(|-1.*)$ ]] && echo 0 || nvidia-smi -L 2>/dev/null | grep -c -m 1 '^GPU' || true)
# a run that is there already is not grown again, so the one that was written last is meant
newest_tree_file() { find output/tree_dataset/part0 -name all_trees.json -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-; }

# Trees of the test databases, whose first attempts the reward model has not seen.
keep_test_trees() { # trees, pairs, file to write
    python - "$@" <<'END'
import json
import sys

trees, pairs, kept = sys.argv[1:]
databases = {pair["db_id"] for pair in json.load(open(pairs, encoding="utf-8"))}
found = [tree for tree in json.load(open(trees, encoding="utf-8")) if tree["db_id"] in databases]
json.dump(found, open(kept, "w", encoding="utf-8"))
print(f"{len(found)} trees of {len(databases)} test databases in {kept}")
END
}

# The viewer's page as a picture, where there is a browser.
picture_of() { # page, file to write
    chromium --headless --no-sandbox --disable-gpu --disable-background-networking --hide-scrollbars \
        --user-data-dir="$(mktemp -d)" --window-size=1400,900 --virtual-time-budget=5000 --screenshot="$2" \
        "file://$PWD/$1" 2>/dev/null
    ls -l "$2"
}

refuse_real_results
started=$SECONDS
stage "environment" bash setup_env.sh
PATH=$PWD/.venv/bin:$PATH
stage "demo data" python data/build_demo.py
stage "model" bash download_model.sh --small
stage "step 2, question ids" python add_question_id.py --file $DATA
stage "step 4.1, revision trees" env MODEL_PATH=$MODEL DATA_PATH=$DATA DB_ROOT=$DB_ROOT NUM_GPUS="$GPUS" \
    MAX_DEPTH="$MAX_DEPTH" NUM_ROOTS="$NUM_ROOTS" SAMPLE_NUM="$SAMPLE_NUM" bash tree/run_parallel.sh --limit "$LIMIT"
stage "step 4.2, merge" python -m tree.merge_shards --test_fraction 0.2
cksum <final_data_train.json >output/.quickstart
stage "step 5, train" python train.py --model_id $MODEL --max_steps "$MAX_STEPS" \
    --batch_size 4 --gradient_accumulation 1 --learning_rate 2e-4 --lora_dropout 0 --gradient_checkpointing false \
    --logging_steps 1
stage "trees of the test databases" keep_test_trees "$(newest_tree_file)" final_data_test.json output/test_trees.json
stage "step 6, evaluate" python evaluate.py --base_model $MODEL --adapters none $ADAPTER \
    --test_data final_data_test.json --candidates output/test_trees.json --db_root $DB_ROOT --batch_size 4
stage "step 7, verify" python -m eval --tree_file "$(newest_tree_file)" --db_root $DB_ROOT \
    --pairs final_data_train.json final_data_test.json --scores evaluation_report.json --html trees.html \
    --output verification_report.json
if command -v chromium >/dev/null; then
    stage "picture of the viewer" picture_of trees.html output/trees.png
fi
stage "summary" python -m eval.summary --tree_file "$(newest_tree_file)" --adapter $ADAPTER
printf '\nquickstart finished in %d s\n' $((SECONDS - started))
