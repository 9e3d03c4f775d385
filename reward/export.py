"""Write base model and adapter as one plain sequence classification model, which other programs serve:

    python -m reward.export --adapter qwen-reward-model-sql-train --base_model Qwen2.5-Coder-1.5B-Instruct \\
        --output reward-model-merged

Merged on the CPU in float32, because bfloat16 reorders close candidates. vLLM serves it as it is:

    vllm serve reward-model-merged --runner pooling --dtype float32
    LLM("reward-model-merged", runner="pooling", dtype="float32").classify(texts)

where a text is a conversation through the tokenizer's chat template; the only number of each answer is the reward.
"""

import argparse
import os
import tempfile
from pathlib import Path

from common.files import InputError, run_script, sync_file
from common.model_folder import check_model_folder
from reward.launch import stay_offline


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m reward.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--adapter", default="qwen-reward-model-sql-train", help="adapter folder of step 5")
    add("--base_model", default="Qwen2.5-Coder-1.5B-Instruct", help="folder of the base model")
    add("--output", required=True, help="folder to write; must not exist, or be empty")
    return parser.parse_args(words)


def export(adapter: Path, base: Path, output: Path) -> None:
    """Write the merged model and its tokenizer to `output`, whole or not at all.

    Its rewards are those of the adapter to about 1e-5.
    """
    from reward.model import load_reward_model

    model, tokenizer = load_reward_model(base, adapter, "float32", "cpu")
    merged = model.merge_and_unload()
    merged.config.problem_type = "regression"  # so that vLLM gives the reward itself, not its sigmoid
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        new = Path(temporary) / output.name
        merged.save_pretrained(new)
        tokenizer.save_pretrained(new)
        for path in new.iterdir():
            sync_file(path)
        os.replace(new, output)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    output = Path(args.output)
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise InputError(f"{output}: is there already; name a new folder with --output")
    base = check_model_folder(args.base_model)

    stay_offline()
    from reward.model import check_adapter  # which loads torch

    check_adapter(args.adapter, base)
    export(Path(args.adapter), base, output)
    print(f"merged reward model in {output}")


if __name__ == "__main__":
    run_script(main)
