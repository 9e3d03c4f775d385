"""The two ends of bench/gpu_check.sh: a random model with made-up pairs to measure on, and the table of the figures.

python -m bench.gpu_check prepare FOLDER --size tiny    # writes FOLDER/model and FOLDER/pairs.json
python -m bench.gpu_check table LOGS                    # of the logs LOGS/*.log
"""

import argparse
import platform
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from common.files import InputError, run_script, write_json


@dataclass(frozen=True)
class Size:
    """What is measured: the model's configuration, and the pairs, all of byte-level tokens."""

    config: dict
    prompt_tokens: int
    questions: int  # of each database
    candidates: int = 9  # of each question: one that is right
    databases: int = 4


# Qwen2.5-Coder-1.5B-Instruct's config.json
QWEN_1_5B = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": True,
}
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}
SIZES = {"1.5b": Size(QWEN_1_5B, prompt_tokens=2000, questions=16), "tiny": Size(TINY, prompt_tokens=200, questions=4)}
PACKAGES = ("torch", "triton", "transformers", "trl", "peft", "accelerate", "datasets")


# --- model ----------------------------------------------------------------------------------------------------------

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_tokenizer(folder: Path) -> int:
    """A tokenizer with a token for each byte and three special ones, and a chat template; returns their number."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return len(vocabulary)


def write_random_model(
    folder: Path, architecture: str = "qwen2", seed: int = 0, device: str = "cpu", dtype: str = "float32", **config
) -> Path:
    """Write model and tokenizer to `folder`. `config`: what differs from the architecture's defaults."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {"vocab_size": write_tokenizer(folder), "pad_token_id": 0, "eos_token_id": 2} | config
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(architecture, **config), dtype=getattr(torch, dtype)
        )
    model.save_pretrained(folder)
    return folder


# --- data -----------------------------------------------------------------------------------------------------------

NAMES = ("id", "name", "city", "price", "year", "status", "amount", "parent_id", "comment", "rating")


def schema_text(database: int, length: int) -> str:
    """CREATE TABLE statements, cut at `length` characters."""
    draw, tables = random.Random(f"schema {database}"), []
    while sum(map(len, tables)) < length:
        columns = ", ".join(f"{name}_{len(tables)} TEXT" for name in draw.sample(NAMES, 6))
        tables.append(f"CREATE TABLE table_{database}_{len(tables)} ({columns});\n")
    return "".join(tables)[:length]


def made_up_pairs(size: Size) -> list[dict]:
    """A pair of the right query with each other one, for every question of every database; always the same."""
    draw, rows = random.Random(0), []
    for database in range(size.databases):
        for number in range(size.questions):
            own = size.prompt_tokens // 10  # values and evidence of the question
            question = f"\nQuestion {number}: " + " ".join(draw.choices(NAMES, k=own // 6))
            prompt = schema_text(database, size.prompt_tokens - own) + question
            queries = [
                f"SELECT {draw.choice(NAMES)} FROM table_{database}_{number} "
                f"WHERE {draw.choice(NAMES)} > {place * 1000 + draw.randrange(1000)}"
                for place in range(size.candidates)
            ]
            rows += [
                {
                    "prompt": [{"role": "user", "content": prompt}],
                    "chosen": [{"role": "assistant", "content": queries[0]}],
                    "rejected": [{"role": "assistant", "content": query}],
                    "question_id": database * size.questions + number,
                    "db_id": f"database_{database}",
                    "relation": "sibling",
                }
                for query in queries[1:]
            ]
    return rows


def prepare(folder: Path, size: Size) -> None:
    import torch

    from reward.model import fast_device

    write_json(folder / "pairs.json", made_up_pairs(size))
    here = fast_device().type
    write_random_model(folder / "model", device=here, dtype="bfloat16", **size.config)
    gpu = (
        f"{torch.cuda.get_device_name()}, {torch.cuda.mem_get_info()[1] / 2**30:.0f} GiB"
        if here == "cuda"
        else "no GPU"
    )
    print(f"MACHINE {gpu}; CUDA {torch.version.cuda}; Python {platform.python_version()}; {versions()}")


def versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


# --- table ----------------------------------------------------------------------------------------------------------

FIGURE = re.compile(r"FIGURE (.+) = (\S+) (.*)$")  # a progress bar may stand before it
FAILED = re.compile(r"FAILED (.+?): (.+)$")
PROMISE = re.compile(r"PROMISE (\w+) (\S+) GOAL (.+)$")
MACHINE = re.compile(r"MACHINE (.+)")
STAGE = re.compile(r"STAGE (\w+): (.+)$")


def rows_of(log: str) -> Iterator[tuple[str, str, str]]:
    """What a stage measured: name, median (or why there is none), and of how many values; last the stage itself."""
    values: dict[tuple[str, str], list[float]] = {}
    others: list[tuple[str, str, str]] = []
    for line in log.splitlines():
        if match := FIGURE.search(line):
            values.setdefault((match[1], match[3]), []).append(float(match[2]))
        elif match := FAILED.search(line):
            others.append((match[1], f"failed: {match[2]}", ""))
        elif match := PROMISE.search(line):
            others.append((match[1], f"{match[2]} (goal {match[3]})", ""))
        elif match := STAGE.search(line):
            others.append((f"stage {match[1]}", match[2], ""))
    for (name, unit), found in values.items():
        value = median(found)
        text = f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
        yield name, f"{text} {unit}".strip(), str(len(found))
    yield from others


def print_table(logs: Path, command: str) -> None:
    """Raises InputError when nothing was measured."""
    texts = [log.read_text(errors="replace") for log in sorted(logs.glob("*.log"))]
    machine = next((match[1] for text in texts if (match := MACHINE.search(text))), "unknown machine")
    print(f"{date.today()}, {machine}. `{command}`:\n\n| | median | values |\n|---|---|---|")
    for text in texts:
        for row in rows_of(text):
            print("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    if not any(FIGURE.search(line) for text in texts for line in text.splitlines()):
        raise InputError(f"nothing was measured; what happened is in {logs}")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("prepare", help="write a random model and made-up pairs").add_argument
    add("folder", type=Path, help="folder to write to")
    add("--size", choices=SIZES, default="1.5b", help="of model and prompts")
    add = commands.add_parser("table", help="print what was measured as a Markdown table").add_argument
    add("logs", type=Path, help="folder of the logs")
    add("--of", default="bash bench/gpu_check.sh", help="the command that measured, for the table")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    if args.command == "prepare":
        prepare(args.folder, SIZES[args.size])
    else:
        print_table(args.logs, args.of)


if __name__ == "__main__":
    run_script(main)
