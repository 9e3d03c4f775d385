"""Write base model and adapter as one plain sequence classification model, which other programs serve:

    python -m reward.export --adapter qwen-reward-model-sql-train --base_model Qwen2.5-Coder-1.5B-Instruct \\
        --output reward-model-merged

Merged on the CPU in float32, because bfloat16 reorders close candidates. vLLM serves it as it is:

    vllm serve reward-model-merged --runner pooling --dtype float32
    LLM("reward-model-merged", runner="pooling", dtype="float32").classify(texts)

where a text is a conversation through the tokenizer's chat template; the only number of each answer is the reward.

With --hub_folder: adapter, merged model and pairs as three folders for the model hub, each with its card:

    python -m reward.export --hub_folder hub --hub_repo YOUR_NAME/resqlver-1.5b

Nothing is uploaded; the last lines say which commands do that.
"""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common.files import InputError, check_writable, run_script, sync_file
from common.model_folder import check_model_folder
from reward.checkpoints import room_for
from reward.hub.folders import (
    HubInputs,
    finish_merged,
    hub_names,
    read_inputs,
    upload_commands,
    write_adapter,
    write_pairs,
)
from reward.hub.names import SOURCES, folder_name
from reward.launch import stay_offline


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m reward.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--adapter", default="qwen-reward-model-sql-train", help="adapter folder of step 5")
    add("--base_model", default="Qwen2.5-Coder-1.5B-Instruct", help="folder of the base model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--output", help="folder to write the merged model to; must not exist, or be empty")
    what.add_argument("--hub_folder", help="folder to write three folders for the hub to; must not exist, or be empty")
    add = parser.add_argument_group("with --hub_folder").add_argument
    add("--hub_repo", help="name of the adapter on the hub, OWNER/NAME; the others are NAME-merged and NAME-pairs")
    add("--base_repo", help="name of the base model on the hub (default: Qwen/ and the name of its folder)")
    add("--train_data", default="final_data_train.json", help="pairs that the adapter was trained on (step 4.2)")
    add("--test_data", default="final_data_test.json", help="pairs that the report judges by (step 4.2)")
    add("--report", default="evaluation_report.json", help="report of step 6, whose figures the cards give")
    add(
        "--source", choices=SOURCES, default="BIRD", help="whose questions these are: the cards name source and licence"
    )
    args = parser.parse_args(words)
    if args.hub_folder and not args.hub_repo:
        raise InputError("--hub_repo: give the name that the adapter is to have on the hub, OWNER/NAME")
    return args


@contextlib.contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """A path for a folder that takes the place of `output` when the block ends well and all in it is on disk.

    Raises InputError when the disk is full.
    """
    where = tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent)
    with where as temporary, room_for(output, "export again"):
        new = Path(temporary) / output.name
        yield new
        for path in new.rglob("*"):
            sync_file(path)
        os.replace(new, output)


def write_merged(adapter: Path, base: Path, folder: Path) -> None:
    """Write the merged model and its tokenizer. Its rewards are those of the adapter to about 1e-5."""
    from reward.model import load_reward_model

    model, tokenizer = load_reward_model(base, adapter, "float32", "cpu")
    merged = model.merge_and_unload()
    merged.config.problem_type = "regression"  # so that vLLM gives the reward itself, not its sigmoid
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def export(adapter: Path, base: Path, output: Path) -> None:
    """Write the merged model to `output`, whole or not at all."""
    with whole_folder(output) as folder:
        write_merged(adapter, base, folder)


def write_for_hub(inputs: HubInputs, folder: Path) -> None:
    """Write the folders of adapter, merged model and pairs, which have the names of their repositories."""
    names = inputs.names
    folder.mkdir()
    write_pairs(inputs, folder / folder_name(names.pairs))
    write_adapter(inputs, folder / folder_name(names.adapter))
    merged = folder / folder_name(names.merged)
    write_merged(inputs.adapter, inputs.base, merged)
    finish_merged(inputs, merged)


def main(words: list[str] | None = None) -> None:
    # --- everything that can be wrong, before a model is loaded ---
    args = parse_arguments(words)
    flag = "--hub_folder" if args.hub_folder else "--output"
    output = Path(args.hub_folder or args.output)
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise InputError(f"{output}: is there already; name a new folder with {flag}")
    check_writable(output.with_name(f".{output.name}"))  # in its parent, which is made where it is not there
    adapter, base = Path(args.adapter), check_model_folder(args.base_model)

    stay_offline()
    from reward.model import check_adapter  # which loads torch

    check_adapter(adapter, base)
    if not args.hub_folder:
        export(adapter, base, output)
        print(f"merged reward model in {output}")
        return

    # --- for the hub ---
    names = hub_names(args.hub_repo, base, args.base_repo)
    files = (Path(path) for path in (args.train_data, args.test_data, args.report))
    inputs = read_inputs(adapter, base, names, args.source, *files)
    with whole_folder(output) as folder:
        write_for_hub(inputs, folder)
    print(f"adapter, merged model and pairs in {output}; to upload them, after `hf auth login`:")
    print("\n".join(upload_commands(output, names)))


if __name__ == "__main__":
    run_script(main)
