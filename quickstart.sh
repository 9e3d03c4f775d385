#!/usr/bin/env bash
# The whole pipeline on a fresh machine, small:  bash quickstart.sh
# Environment, bundled demo data, a 0.5B model, then steps 2 to 7 of the README with the README's own scripts; the reward
# model is trained on four of the demo's databases and judged on the other five. About ten minutes on two CPU cores
# after the downloads; everything is written to output/quickstart. A second run goes on where the first one stopped, or
# begins anew with other settings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# --------------------------------------------------------------------------------------------------
LIMIT=${LIMIT:-99}           # questions, as many of each database (0 = all of the demo)
MAX_DEPTH=${MAX_DEPTH:-2}    # levels of a tree
NUM_ROOTS=${NUM_ROOTS:-8}    # first attempts at a question
SAMPLE_NUM=${SAMPLE_NUM:-1}  # revisions of each wrong query
MAX_STEPS=${MAX_STEPS:-12}   # optimiser steps of 4 questions
# --------------------------------------------------------------------------------------------------

MODEL=Qwen2.5-Coder-0.5B-Instruct
DATA=data/demo/train.json
DB_ROOT=data/demo/train_databases
TEST_DBS=language_school,observatory,orchard,rail_network,village_clinic
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
    settings="$LIMIT $MAX_DEPTH $NUM_ROOTS $SAMPLE_NUM $MAX_STEPS $(cksum <data/demo/.built)"
    if [ -d $RUN ] && [ "$(cat $RUN/settings 2>/dev/null)" != "$settings" ]; then
        local aside
        aside=$RUN-$(date +%Y%m%d_%H%M%S)
        mv $RUN "$aside"
        echo "begins anew: what was written with other settings is now in $aside"
    fi
    mkdir -p $RUN
    echo "$settings" >$RUN/settings
}

# Merging writes into the folder where it is called, and refuses databases without pairs, which few questions may leave.
merge() {
    local db test_dbs=
    for db in ${TEST_DBS//,/ }; do
        if grep -q "\"db_id\": \"$db\"" $RUN/final_data_emerge_shard_0.json; then test_dbs+=,$db; fi
    done
    (cd $RUN && PYTHONPATH=$OLDPWD python -m tree.merge_shards --output_dir . --test_dbs "${test_dbs#,}")
}

# Trees of the test databases, whose first attempts the reward model has not seen.
keep_test_trees() { # trees, file to write, databases
    python - "$@" <<'END'
import json
import sys

trees, kept, databases = sys.argv[1:]
found = [tree for tree in json.load(open(trees, encoding="utf-8")) if tree["db_id"] in databases.split(",")]
json.dump(found, open(kept, "w", encoding="utf-8"))
print(f"{len(found)} trees of the test databases in {kept}")
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

# A second one would move the folder of the first away; what the first one started holds the lock as long as it writes.
mkdir -p output
exec 9>output/.quickstart.lock
flock -n 9 || { echo "error: another quickstart is at work here; wait for it, or stop it" >&2; exit 2; }

trap 'printf "\ninterrupted: what is finished is kept, bash quickstart.sh goes on with the rest\n" >&2; exit 130' INT

started=$SECONDS
stage "environment" bash setup_env.sh
PATH=$PWD/.venv/bin:$PATH
stage "demo data" python data/build_demo.py
stage "model" bash download_model.sh --small
stage "step 2, question ids" python add_question_id.py --file $DATA
begin_or_go_on
stage "step 4.1, revision trees" env MODEL_PATH=$MODEL DATA_PATH=$DATA DB_ROOT=$DB_ROOT OUTPUT_DIR=$RUN NUM_GPUS="$GPUS" \
    MAX_DEPTH="$MAX_DEPTH" NUM_ROOTS="$NUM_ROOTS" SAMPLE_NUM="$SAMPLE_NUM" bash tree/run_parallel.sh --limit "$LIMIT"
stage "step 4.2, merge" merge
trees=$(echo $RUN/tree_dataset/part0/*/all_trees.json)
train_pairs=$RUN/final_data_train.json
test_pairs=$RUN/final_data_test.json
stage "step 5, train" python train.py --model_id $MODEL --data_path $train_pairs --output_dir $ADAPTER \
    --max_steps "$MAX_STEPS" --validation_fraction 0 --batch_size 4 --learning_rate 2e-4 --lora_dropout 0 \
    --result_length 150 --gradient_checkpointing false --logging_steps 1
stage "trees of the test databases" keep_test_trees "$trees" $RUN/test_trees.json $TEST_DBS
stage "step 6, evaluate" python evaluate.py --base_model $MODEL --adapters none $ADAPTER --test_data $test_pairs \
    --candidates $RUN/test_trees.json --db_root $DB_ROOT --batch_size 16 --output_file $RUN/evaluation_report.json
stage "step 7, verify" python -m eval --tree_file "$trees" --db_root $DB_ROOT \
    --pairs $train_pairs $test_pairs --scores $RUN/evaluation_report.json --html $RUN/trees.html \
    --output $RUN/verification_report.json
if command -v chromium >/dev/null; then
    tree=$(grep -o '#tree=.*' "$LOGS/$number.log" || true)
    stage "picture of the viewer" picture_of "$RUN/trees.html$tree" $RUN/trees.png
fi
stage "summary" python -m eval.summary --tree_file "$trees" --train_data $train_pairs --test_data $test_pairs \
    --adapter $ADAPTER --evaluation $RUN/evaluation_report.json --verification $RUN/verification_report.json

next="MODEL_PATH=$MODEL bash tree/run_parallel.sh --limit 100"
[ "$GPUS" = 0 ] || next="bash download_model.sh && bash tree/run_parallel.sh"
printf '\nquickstart finished in %d s; open %s in a browser to look at the trees\n' $((SECONDS - started)) $RUN/trees.html
printf 'next, with BIRD in data/train (README, step 2):\n    python add_question_id.py && %s\n' "$next"
