"""The flags of a run that grows trees, and what they must be."""

import argparse
from pathlib import Path

from common.files import InputError, read_json
from tree.pairs.extraction import add_pair_flags, check_pair_flags
from tree.prompts import REVISIONS
from tree.run.prompt_settings import PromptSettings
from tree.schema.write import FORMATS
from tree.sql_utils import add_sql_flags, sql_settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `python -m tree.run_pipeline`."""
    add = parser.add_argument_group("questions and files").add_argument
    add("--data", default="data/train/train.json", help="question file with ids (step 2)")
    add("--db_root", default="data/train/train_databases", help="folder of the databases: {db_id}/{db_id}.sqlite")
    add("--output_dir", default="output", help="folder to write to")
    add("--shard_id", type=int, default=0, help="which shard, from 0")
    add("--num_shards", type=int, default=1, help="how many shards share the questions")
    add("--limit", type=int, default=0, help="only so many questions, spread over the databases (0 = all)")
    add("--keep_empty_gold", action="store_true", help="keep questions whose gold query returns nothing")
    add("--no_gold", action="store_true", help="questions without gold: draw candidates only, with --max_depth 1")
    add("--fresh", action="store_true", help="start a new run, whatever is there to be continued")
    add("--dry_run", action="store_true", help="check everything and print what would be done, without an engine")

    add = parser.add_argument_group("prompts").add_argument
    add("--schema_format", choices=FORMATS, default=FORMATS[0], help="how the schema is written, see docs/trees.md")
    add("--no_values", action="store_true", help="do not show stored values that match the question")
    add(
        "--max_prompt_tokens",
        type=int,
        default=PromptSettings.max_prompt_tokens,
        help="longest prompt in tokens; a longer schema is shortened (0 = what the model reads). train.py reads 4096",
    )

    add = parser.add_argument_group("trees").add_argument
    add("--max_depth", type=int, default=3, help="levels of the tree; 1 = first attempts only")
    add("--num_roots", type=int, default=0, help="first attempts at a question (0 = as many as --sample_num)")
    add("--sample_num", type=int, default=4, help="revisions of each wrong query")
    add("--max_nodes", type=int, default=24, help="queries of a tree at most (0 = no bound)")
    add("--stop_after", type=int, default=0, help="ask for no more revisions after so many correct queries (0 = off)")
    add("--redraws", type=int, default=1, help="how often a repeated wrong query is drawn again (0 = off)")
    add("--revision", choices=REVISIONS, default=REVISIONS[0], help="what a request for one shows, see docs/trees.md")
    add("--feedback", choices=("own", "oracle"), default="own", help="oracle shows the expected rows (for ablation)")
    add("--seed", type=int, default=0, help="run seed; each request derives its own")

    add_pair_flags(parser)

    add = parser.add_argument_group("model and engine").add_argument
    add("--model", default="Qwen2.5-Coder-3B-Instruct", help="folder of the generator")
    add("--temperature", type=float, default=0.8, help="sampling temperature")
    add("--top_k", type=int, default=20, help="draw among so many likeliest tokens (0 = all)")
    add(
        "--top_p", type=float, default=1.0, help="draw among the likeliest tokens of this mass (1 = off; slow on a CPU)"
    )
    add("--max_tokens", type=int, default=512, help="longest reply, in tokens")
    add("--max_model_len", type=int, default=0, help="longest prompt plus reply, in tokens (0 = what the prompts need)")
    add("--max_num_seqs", type=int, default=0, help="replies written at the same time (0 = 256 on a GPU, 64 on a CPU)")
    add("--max_num_batched_tokens", type=int, default=0, help="tokens computed in one step (0 = 8,192)")
    add("--gpu_memory", type=float, default=0.9, help="share of the GPU's memory for the engine (no effect on a CPU)")
    add("--gpu_gib", type=float, default=0.0, help="GiB of the GPU that --dry_run reckons with (0 = of the one here)")
    add(
        "--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto", help="precision of the generator"
    )

    add = parser.add_argument_group("work in flight").add_argument
    add(
        "--trees_in_flight", type=int, default=0, help="questions worked on at the same time (0 = keep the engine full)"
    )
    add_sql_flags(add, "half of the cores, at most 16")


def check_settings(args: argparse.Namespace) -> None:
    """Raise InputError for a setting out of its range."""
    for name in ("num_shards", "max_depth", "sample_num", "num_roots", "max_tokens"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: must be 1 or more")
    for name in (
        *(
            "limit",
            "max_prompt_tokens",
            "max_nodes",
            "stop_after",
            "redraws",
            "max_model_len",
            "max_num_seqs",
            "max_num_batched_tokens",
        ),
        *("trees_in_flight", "temperature", "top_k"),
    ):
        if getattr(args, name) < 0:
            raise InputError(f"--{name} {getattr(args, name)}: must not be negative")
    check_pair_flags(args)
    if not 0 <= args.shard_id < args.num_shards:
        raise InputError(f"--shard_id {args.shard_id}: must be from 0 to {args.num_shards - 1} (--num_shards)")
    if args.gpu_gib < 0 or (args.gpu_gib and not args.dry_run):
        raise InputError(f"--gpu_gib {args.gpu_gib}: must be positive, and is for --dry_run only")
    sql_settings(args)
    if not 0 < args.top_p <= 1 or not 0 < args.gpu_memory <= 1:
        raise InputError("--top_p and --gpu_memory must be above 0 and at most 1")
    if args.temperature == 0 and max(args.num_roots, args.sample_num) > 1:
        raise InputError(
            "--temperature 0 gives the same reply every time; set --num_roots 1 --sample_num 1, or a higher temperature"
        )
    if args.no_gold and args.max_depth > 1:
        raise InputError("--no_gold: without gold no query is known to be wrong, so none is revised; set --max_depth 1")
    if 0 < args.max_nodes < args.num_roots and not args.no_gold:
        raise InputError(f"--max_nodes {args.max_nodes}: must not be below --num_roots {args.num_roots}")
    if 0 < args.max_model_len <= args.max_tokens:
        raise InputError(f"--max_model_len {args.max_model_len} leaves no room beside --max_tokens {args.max_tokens}")


def context_limit(args: argparse.Namespace, model: Path) -> int:
    """The longest prompt plus reply in tokens: --max_model_len, or what the model reads. Raises InputError."""
    longest = read_json(model / "config.json", dict).get("max_position_embeddings", args.max_model_len)
    if args.max_model_len > longest:
        raise InputError(f"--max_model_len {args.max_model_len}: {model} reads at most {longest} tokens")
    return args.max_model_len or longest


def longest_prompt(args: argparse.Namespace, limit: int) -> int:
    """The tokens that a prompt may have in a context of `limit`."""
    return min(args.max_prompt_tokens or limit, limit - args.max_tokens)


def most_nodes(args: argparse.Namespace) -> int:
    """Queries of a tree in which every query is wrong and new."""
    levels = sum(args.num_roots * args.sample_num**depth for depth in range(args.max_depth))
    return min(levels, args.max_nodes) if args.max_nodes else levels
