"""The settings of a run that grows trees: its flags, what they must be, and the dataclass made of them once."""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from common.files import InputError, read_json
from common.model_folder import check_model_folder
from tree.generator import ROOM_PER_LEVEL, EngineSettings, Sampling
from tree.pairs.extraction import STRATEGIES, PairSettings, add_pair_flags
from tree.prompts import REVISIONS
from tree.run.prompt_settings import PromptSettings
from tree.run.reviser import read_reviser
from tree.schema.write import FORMATS
from tree.sql_utils import SqlSettings, add_sql_flags, sql_settings
from tree.tree_builder import TreeSettings

AT_LEAST_1 = ("num_shards", "max_depth", "sample_num", "num_roots", "max_tokens", "beam")
AT_LEAST_0 = (
    *("limit", "max_prompt_tokens", "max_nodes", "stop_after", "redraws"),
    *("temperature", "top_k", "max_model_len", "max_num_seqs", "gpu_gib"),
)
MOST_SQL_WORKERS = 16  # of the default
DEFAULT_SQL_WORKERS = f"half of the cores, at most {MOST_SQL_WORKERS}"

Part = TypeVar("Part")


@dataclass(frozen=True)
class RunSettings:
    """One shard's run: most fields are flags, see their help.

    `context_limit` is the longest prompt plus reply in tokens that the user or the model allows; `arguments` holds
    every flag by name, as the manifest records them.
    """

    data: str
    db_root: str
    output_dir: str
    shard_id: int
    num_shards: int
    limit: int
    keep_empty_gold: bool
    no_gold: bool
    fresh: bool
    dry_run: bool
    gpu_gib: float
    model: Path
    context_limit: int
    prompts: PromptSettings
    tree: TreeSettings
    pairs: PairSettings
    sampling: Sampling
    engine: EngineSettings
    sql: SqlSettings
    arguments: dict

    def engine_for(self, longest: int) -> EngineSettings:
        """The engine's settings for initial prompts of at most `longest` tokens, revised level by level."""
        needed = longest + (self.tree.max_depth - 1) * ROOM_PER_LEVEL + self.sampling.max_tokens
        return with_context(self.engine, needed, self.context_limit)

    def most_nodes(self) -> int:
        """Queries of a tree in which every query is wrong and new."""
        most = self.tree.most_nodes(self.tree.max_depth)
        return min(most, self.tree.max_nodes) if self.tree.max_nodes else most


# --- flags ----------------------------------------------------------------------------------------------------------


def parse_arguments(words: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """The flags of `python -m tree.run_pipeline`. Raises InputError for one out of its range."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_run_flags(parser.add_argument_group("questions and files").add_argument)
    _add_prompt_flags(parser.add_argument_group("prompts").add_argument)
    _add_tree_flags(parser.add_argument_group("trees").add_argument)
    add_pair_flags(parser.add_argument_group("pairs").add_argument)
    add = parser.add_argument_group("model and engine").add_argument
    add_engine_flags(add, "the engine", "that --dry_run reckons with")
    add_sql_flags(parser.add_argument_group("SQL").add_argument, DEFAULT_SQL_WORKERS)
    args = parser.parse_args(words)
    _check(args)
    return args


def _add_run_flags(add: Callable) -> None:
    add_question_flags(add, "train", "output")
    add("--shard_id", type=int, default=0, help="which shard, from 0")
    add("--num_shards", type=int, default=1, help="how many shards share the questions")
    add("--keep_empty_gold", action="store_true", help="keep questions whose gold query returns nothing")
    add("--no_gold", action="store_true", help="questions without gold: draw candidates only, with --max_depth 1")
    add("--dry_run", action="store_true", help="check everything and print what would be done, without an engine")


def add_question_flags(add: Callable, split: str, output_dir: str) -> None:
    """Which questions, by default those of a split of BIRD's, and where what comes of them goes."""
    add("--data", default=f"data/{split}/{split}.json", help="question file with ids (step 2)")
    add("--db_root", default=f"data/{split}/{split}_databases", help="folder of the databases: {db_id}/{db_id}.sqlite")
    add("--output_dir", default=output_dir, help="folder to write to")
    add("--limit", type=int, default=0, help="only so many questions, spread over the databases (0 = all)")
    add("--fresh", action="store_true", help="start a new run, whatever is there to be resumed")


def _add_prompt_flags(add: Callable) -> None:
    longest = "longest prompt in tokens; a longer schema is shortened (0 = what the model reads). train.py reads 4096"
    add("--schema_format", choices=FORMATS, default=FORMATS[0], help="how the schema is written, see docs/trees.md")
    add("--no_values", action="store_true", help="do not show stored values that match the question")
    add("--max_prompt_tokens", type=int, default=PromptSettings.max_prompt_tokens, help=longest)


def _add_tree_flags(add: Callable) -> None:
    add("--max_depth", type=int, default=3, help="levels of the tree; 1 = first attempts only")
    add_attempt_flags(add)
    add("--max_nodes", type=int, default=24, help="queries of a tree at most (0 = no bound)")
    add("--stop_after", type=int, default=0, help="ask for no more revisions after so many correct queries (0 = off)")
    add("--redraws", type=int, default=1, help="how often a repeated wrong query is drawn again (0 = off)")
    add("--feedback", choices=("own", "oracle"), default="own", help="oracle shows the expected rows (for ablation)")


def add_attempt_flags(add: Callable) -> None:
    """How many queries are asked for, and what a request for revisions shows."""
    add("--num_roots", type=int, default=8, help="first attempts at a question")
    add("--sample_num", type=int, default=2, help="revisions of each query that is revised")
    add("--revision", choices=REVISIONS, default=REVISIONS[0], help="what a revision is shown, see docs/trees.md")
    add("--reviser", default="", help='folder of a reviser, which writes revisions ("" = the generator writes them)')
    add("--seed", type=int, default=0, help="run seed; each request derives its own")


def add_engine_flags(add: Callable, sharing: str, card: str) -> None:
    """The generator, its sampling and its engine; `sharing` says what --gpu_memory is for, `card` what --gpu_gib is."""
    types = ("auto", "bfloat16", "float16", "float32")
    mass = "draw among the likeliest tokens of this mass (1 = off; slow on a CPU)"
    add("--model", default="Qwen2.5-Coder-3B-Instruct", help="folder of the generator")
    add("--temperature", type=float, default=0.8, help="sampling temperature")
    add("--top_k", type=int, default=20, help="draw among so many likeliest tokens (0 = all)")
    add("--top_p", type=float, default=1.0, help=mass)
    add("--max_tokens", type=int, default=512, help="longest reply, in tokens")
    add("--max_model_len", type=int, default=0, help="longest prompt plus reply, in tokens (0 = what the prompts need)")
    add("--max_num_seqs", type=int, default=0, help="replies written at the same time (0 = 256 on a GPU, 64 on a CPU)")
    add("--gpu_memory", type=float, default=0.9, help=f"share of the GPU's memory for {sharing} (no effect on a CPU)")
    add("--gpu_gib", type=float, default=0.0, help=f"GiB of the GPU {card} (0 = of the one here)")
    add("--dtype", choices=types, default="auto", help="precision of the generator")


# --- what they must be ----------------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> None:
    """Raise InputError for a flag out of its range, or that does not go with another."""
    check_common(args)
    _pairs(vars(args))  # each checks its own
    sql_settings(args.sql_workers, args.sql_timeout)
    if not 0 <= args.shard_id < args.num_shards:
        raise InputError(f"--shard_id {args.shard_id}: must be from 0 to {args.num_shards - 1} (--num_shards)")
    if args.gpu_gib and not args.dry_run:
        raise InputError(f"--gpu_gib {args.gpu_gib:g}: is for --dry_run only; add it, or leave --gpu_gib out")
    if args.no_gold and args.max_depth > 1:
        raise InputError("--no_gold: without gold no query is known to be wrong, so none is revised; set --max_depth 1")
    if args.reviser and args.max_depth == 1:
        raise InputError(f"--reviser {args.reviser}: with --max_depth 1 nothing is revised; leave --reviser out")
    if 0 < args.max_nodes < args.num_roots and not args.no_gold:
        raise InputError(f"--max_nodes {args.max_nodes}: must not be below --num_roots {args.num_roots}")


def check_common(args: argparse.Namespace) -> None:
    """The same for what other scripts that ask a generator have too; flags that they have not are left out."""
    for names, least, words in ((AT_LEAST_1, 1, "must be 1 or more"), (AT_LEAST_0, 0, "must not be negative")):
        for name in names:
            if getattr(args, name, least) < least:
                raise InputError(f"--{name} {getattr(args, name)}: {words}")
    for name in ("top_p", "gpu_memory"):
        if not 0 < getattr(args, name) <= 1:
            raise InputError(f"--{name} {getattr(args, name)}: must be above 0 and at most 1")
    if args.temperature == 0 and max(args.num_roots, args.sample_num) > 1:
        raise InputError(
            "--temperature 0 gives the same reply every time; set --num_roots 1 --sample_num 1, or a higher temperature"
        )
    if 0 < args.max_model_len <= args.max_tokens:
        raise InputError(f"--max_model_len {args.max_model_len} leaves no room beside --max_tokens {args.max_tokens}")


def run_settings(args: argparse.Namespace) -> RunSettings:
    """The settings that the flags name for their model, which is looked at. Raises InputError."""
    model = check_model_folder(args.model)
    context = context_limit(args.max_model_len, model)
    # as the manifest is to record it
    args.max_prompt_tokens = min(args.max_prompt_tokens or context, context - args.max_tokens)
    flags = vars(args)
    reviser = read_reviser(args.reviser, model, args.revision)
    parts = {
        "model": model,
        "context_limit": context,
        "prompts": part(PromptSettings, flags),
        "tree": part(TreeSettings, flags),
        "pairs": _pairs(flags),
        "sampling": part(Sampling, flags),
        "engine": part(EngineSettings, flags | {"reviser": reviser}),
        "sql": sql_beside_an_engine(args),
        "arguments": flags,
    }
    return part(RunSettings, flags | parts)


def part(kind: type[Part], values: dict) -> Part:
    """A dataclass whose fields are looked up among `values`."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def _pairs(flags: dict) -> PairSettings:
    """Those of both strategies, which have no flag here: pairs of each are written."""
    return part(PairSettings, {"strategy": STRATEGIES[0], **flags})


def sql_beside_an_engine(args: argparse.Namespace) -> SqlSettings:
    """What the SQL flags name, DEFAULT_SQL_WORKERS where they leave it open."""
    half_of_the_cores = max(1, (os.cpu_count() or 1) // 2)
    return sql_settings(args.sql_workers, args.sql_timeout, default=min(MOST_SQL_WORKERS, half_of_the_cores))


def with_context(engine: EngineSettings, needed: int, limit: int) -> EngineSettings:
    """The engine's settings with a context: as asked, or so many tokens as are needed, within a limit."""
    return replace(engine, max_model_len=engine.max_model_len or min(limit, needed))


def context_limit(asked: int, model: Path) -> int:
    """The longest prompt plus reply in tokens: as asked, or what the model reads (0). Raises InputError."""
    longest = read_json(model / "config.json", dict).get("max_position_embeddings", asked)
    if asked > longest:
        raise InputError(f"--max_model_len {asked}: {model} reads at most {longest} tokens")
    return asked or longest
