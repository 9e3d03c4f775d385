#!/usr/bin/env bash
# The whole pipeline on a fresh machine, small:  bash quickstart.sh
# Environment, bundled demo data, a 0.5B model, then steps 2 to 7 of the README with the README's own scripts; the reward
# model is trained on five of the demo's databases and judged on the other four, so there is nothing to split in step 4.2.
# About ten minutes on two CPU cores after the downloads; everything is written to output/quickstart. A second run goes
# on where the first one stopped, or begins anew with other settings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# --------------------------------------------------------------------------------------------------
LIMIT=${LIMIT:-45}           # questions to train on (0 = all of five databases)
TEST_LIMIT=${TEST_LIMIT:-0}  # questions to choose for (0 = all of the other four databases)
MAX_DEPTH=${MAX_DEPTH:-2}    # levels of a tree
NUM_ROOTS=${NUM_ROOTS:-8}    # first attempts at a question
SAMPLE_NUM=${SAMPLE_NUM:-2}  # revisions of each wrong query
MAX_STEPS=${MAX_STEPS:-16}   # optimiser steps of 4 questions
# --------------------------------------------------------------------------------------------------

MODEL=Qwen2.5-Coder-0.5B-Instruct
DATA=data/demo/train.json
DB_ROOT=data/demo/train_databases
TEST_DBS="observatory orchard rail_network village_clinic"
RUN=output/quickstart
ADAPTER=$RUN/qwen-reward-model-sql-train
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

# Results of other settings, or of other data, are moved aside, whether finished or not.
begin_or_go_on() {
    local settings
    settings="$LIMIT $TEST_LIMIT $MAX_DEPTH $NUM_ROOTS $SAMPLE_NUM $MAX_STEPS $(cksum <data/demo/.built)"
    if [ -d $RUN ] && [ "$(cat $RUN/settings 2>/dev/null)" != "$settings" ]; then
        local aside
        aside=$RUN-$(date +%Y%m%d_%H%M%S)
        mv $RUN "$aside"
        echo "begins anew: what was written with other settings is now in $aside"
    fi
    mkdir -p $RUN
    echo "$settings" >$RUN/settings
}

# The questions of the test databases into one file, all others into another.
split_questions() { # questions, folder to write to, databases
    python - "$@" <<'END'
import json
import sys

path, folder, *test_dbs = sys.argv[1:]
rows = json.load(open(path, encoding="utf-8"))
for name in ("train", "test"):
    part = [row for row in rows if (row["db_id"] in test_dbs) == (name == "test")]
    json.dump(part, open(f"{folder}/{name}.json", "w", encoding="utf-8"))
    print(f"{folder}/{name}.json: {len(part)} questions of {len({row['db_id'] for row in part})} databases")
END
}

# The viewer's page as a picture, where there is a browser.
picture_of() { # page, file to write
    chromium --headless --no-sandbox --disable-gpu --disable-background-networking --hide-scrollbars \
        --user-data-dir="$(mktemp -d)" --force-device-scale-factor=1.25 --window-size=1200,760 \
        --virtual-time-budget=5000 --screenshot="$2" "file://$PWD/$1" 2>/dev/null
    ls -l "$2"
}

# one GPU is enough, if the caller shows any
GPUS=$([[ ${CUDA_VISIBLE_DEVICES-all} =~ ^(|-1.*)$ ]] && echo 0 || nvidia-smi -L 2>/dev/null | grep -c -m 1 '^GPU' || true)
grow=(env MODEL_PATH=$MODEL DB_ROOT=$DB_ROOT NUM_GPUS="$GPUS" NUM_ROOTS="$NUM_ROOTS" SAMPLE_NUM="$SAMPLE_NUM")

started=$SECONDS
stage "environment" bash setup_env.sh
PATH=$PWD/.venv/bin:$PATH
stage "demo data" python data/build_demo.py
stage "model" bash download_model.sh --small
stage "step 2, question ids" python add_question_id.py --file $DATA
begin_or_go_on
# shellcheck disable=SC2086
stage "questions to train and to test on" split_questions $DATA $RUN $TEST_DBS
stage "step 4.1, revision trees to train on" "${grow[@]}" DATA_PATH=$RUN/train.json OUTPUT_DIR=$RUN/train \
    MAX_DEPTH="$MAX_DEPTH" bash tree/run_parallel.sh --limit "$LIMIT"
stage "first attempts to choose from" "${grow[@]}" DATA_PATH=$RUN/test.json OUTPUT_DIR=$RUN/test \
    MAX_DEPTH=1 bash tree/run_parallel.sh --limit "$TEST_LIMIT" --redraws 0
train_trees=$(echo $RUN/train/tree_dataset/part0/*/all_trees.json)
test_trees=$(echo $RUN/test/tree_dataset/part0/*/all_trees.json)
train_pairs=$RUN/train/final_data_emerge_shard_0.json
test_pairs=$RUN/test/final_data_emerge_shard_0.json
stage "step 5, train" python train.py --model_id $MODEL --data_path $train_pairs --output_dir $ADAPTER \
    --max_steps "$MAX_STEPS" --validation_fraction 0 --batch_size 4 --gradient_accumulation 1 --learning_rate 2e-4 \
    --lora_dropout 0 --gradient_checkpointing false --logging_steps 1
stage "step 6, evaluate" python evaluate.py --base_model $MODEL --adapters none $ADAPTER --test_data $test_pairs \
    --candidates "$test_trees" --db_root $DB_ROOT --batch_size 16 --output_file $RUN/evaluation_report.json
stage "step 7, verify" python -m eval --tree_file "$train_trees" "$test_trees" --db_root $DB_ROOT \
    --pairs $train_pairs $test_pairs --scores $RUN/evaluation_report.json --html $RUN/trees.html \
    --output $RUN/verification_report.json
if command -v chromium >/dev/null; then
    tree=$(grep -o '#tree=.*' "$LOGS/$number.log" || true)
    stage "picture of the viewer" picture_of "$RUN/trees.html$tree" $RUN/trees.png
fi
stage "summary" python -m eval.summary --tree_file "$train_trees" --train_data $train_pairs --test_data $test_pairs \
    --adapter $ADAPTER --evaluation $RUN/evaluation_report.json --verification $RUN/verification_report.json

next="MODEL_PATH=$MODEL bash tree/run_parallel.sh --limit 100"
[ "$GPUS" = 0 ] || next="bash download_model.sh && bash tree/run_parallel.sh"
printf '\nquickstart finished in %d s; open %s in a browser to look at the trees\n' $((SECONDS - started)) $RUN/trees.html
printf 'next, with BIRD in data/train (README, step 2):\n    python add_question_id.py && %s\n' "$next"
