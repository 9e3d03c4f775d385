"""What attention that skips what the mask hides saves on packed questions, against transformers' sdpa with that mask.

    python -m bench.packed_attention --model Qwen2.5-Coder-0.5B-Instruct \\
        --data output/tree_dataset/part0/20260101_120000/all_trees.json
    python -m bench.packed_attention --model Qwen2.5-Coder-0.5B-Instruct --data final_data_train.json --questions 8

On a CPU the other is train.py's attention in blocks, on a GPU FlexAttention. A pass holds the first questions, with all
their candidates, of the database that has the most. It is the forward and the backward pass of train.py's model with
its LoRA and gradient checkpointing; both ways alternate on one model, after a warm-up. The figure is the median over
the rounds of sdpa's seconds over the other's, for each number of questions. The peak of memory is shown, too. A way
that fails (its compiler, the memory) is named with what went wrong, and the other is measured still.
"""

import argparse
import sys
import time
from statistics import median
from typing import TYPE_CHECKING

import train
from bench.reward_training import figure, forget_peak, load_questions, peak_mb
from common.files import InputError, run_script
from common.model_folder import check_model_folder
from reward.data import QuestionPairs
from reward.tokens import load_tokenizer, tokenize

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def largest_database(questions: list[QuestionPairs], wanted: int) -> list[QuestionPairs]:
    """`wanted` questions of the database that has the most. Raises InputError when it has fewer."""
    of_database: dict[str, list[QuestionPairs]] = {}
    for question in questions:
        of_database.setdefault(question.pairs[0].db_id, []).append(question)
    db_id, most = max(of_database.items(), key=lambda item: len(item[1]))
    if len(most) < wanted:
        raise InputError(f"--questions {wanted}: no database has more questions with pairs than {db_id}, {len(most)}")
    return most[:wanted]


def packed(questions: list[QuestionPairs], tokenizer: "PreTrainedTokenizerBase") -> dict[str, "Tensor"]:
    """The tensors of one forward pass over all candidates, however many rows these take."""
    from reward.packing import pack, pad_rows

    sequences = [
        part.prefix + suffix for part in tokenize(questions, tokenizer, sys.maxsize) for suffix in part.suffixes
    ]
    return pad_rows(pack(enumerate(sorted(sequences)), sys.maxsize), tokenizer.pad_token_id)


def trained_model(folder: str, dtype: str, tokenizer: "PreTrainedTokenizerBase") -> "PeftModel":
    from peft import get_peft_model

    from reward.model import base_dtype, fast_device, load_base

    settings = train.default_settings()
    base = load_base(folder, tokenizer.pad_token_id, base_dtype(dtype))
    model = get_peft_model(base, train.lora_config(settings)).train().to(fast_device())
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    return model


def kernel_of_sdpa(model: "PeftModel", inputs: dict) -> str:
    """Which of its kernels PyTorch takes for such a pass."""
    import torch
    from torch.nn.attention import SDPBackend

    from reward.packing import tree_mask

    config, ends = model.get_base_model().config, inputs["subtree_ends"]
    shape = (len(ends), config.num_attention_heads, ends.shape[1], config.hidden_size // config.num_attention_heads)
    query = torch.empty(shape, dtype=config.dtype, device=ends.device, requires_grad=True)
    return SDPBackend(torch._fused_sdp_choice(query, query, query, attn_mask=tree_mask(ends))).name


def seconds(model: "PeftModel", inputs: dict, attention: str) -> float:
    import torch

    from reward.packing import packed_scores

    model.get_base_model().set_attn_implementation(attention)
    start = time.perf_counter()
    packed_scores(model, inputs).sum().backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    passed = time.perf_counter() - start
    model.zero_grad()
    return passed


def measure(model: "PeftModel", inputs: dict, name: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round by the name of the attention, without those that fail."""
    from reward.packing import BLOCK_ATTENTION, FLEX_ATTENTION

    taken: dict[str, list[float]] = {}
    for way in ("sdpa", FLEX_ATTENTION if model.device.type == "cuda" else BLOCK_ATTENTION):
        try:
            seconds(model, inputs, way)  # which may compile it
            forget_peak()
            seconds(model, inputs, way)
        except Exception as error:  # whatever compilers and drivers raise
            reason = (str(error).splitlines() or [""])[0]
            print(f"FAILED {name}, {way}: {type(error).__name__}: {reason}", flush=True)
            model.zero_grad()
            continue
        figure(f"{name}, {way}: peak memory", peak_mb(), "MB")
        taken[way] = []
    for _ in range(rounds):
        for way, times in taken.items():
            times.append(seconds(model, inputs, way))
            figure(f"{name}, {way}", times[-1], "s")
    return taken


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="Qwen2.5-Coder-0.5B-Instruct", help="folder of the base model")
    add("--data", default="final_data_train.json", help="pair file, or all_trees.json")
    add("--questions", type=int, nargs="+", default=[4, 12], help="how many questions a pass has")
    add("--rounds", type=int, default=3, help="repetitions of each measurement")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of the frozen base, as in train.py")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    if min(*args.questions, args.rounds) < 1:
        raise InputError("--questions and --rounds must be 1 or more")
    check_model_folder(args.model)
    questions = largest_database(load_questions(args.data), max(args.questions))

    tokenizer = load_tokenizer(args.model)
    model = trained_model(args.model, args.dtype, tokenizer)
    compared = 0
    for count in args.questions:
        inputs = {name: part.to(model.device) for name, part in packed(questions[:count], tokenizer).items()}
        tokens = inputs["lengths"].sum().item()
        name = f"packed pass of {count} questions, {tokens} tokens"
        print(f"{name}: sdpa takes {kernel_of_sdpa(model, inputs)}", flush=True)
        taken = measure(model, inputs, name, args.rounds)
        if len(taken) == 2:
            compared += 1
            speedup = median(slow / fast for slow, fast in zip(*taken.values(), strict=True))
            print(f"PROMISE packed_attention_speedup_{count}_questions {speedup:.2f} GOAL >= 1", flush=True)
    if not compared:
        raise InputError("one of the two ways failed for each number of questions, see the lines above")


if __name__ == "__main__":
    run_script(main)
