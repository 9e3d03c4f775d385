"""Grow the revision trees of one shard of questions and extract their preference pairs (step 4.1).

    python -m tree.run_pipeline --data data/train/train.json --db_root data/train/train_databases \\
        --model Qwen2.5-Coder-1.5B-Instruct --output_dir output
    python -m tree.run_pipeline --data data/demo/train.json --db_root data/demo/train_databases \\
        --model Qwen2.5-Coder-0.5B-Instruct --limit 10 --max_depth 2       # a trial on a CPU
    python -m tree.run_pipeline --dry_run                                  # what it would do, without an engine

`bash tree/run_parallel.sh` runs one such worker per GPU. Writes under --output_dir:
tree_dataset/part{shard}/{time}/all_trees.json with manifest.json beside it, and
final_data_emerge_shard_{shard}.json, final_data_baseline_shard_{shard}.json. With --no_gold only candidates.json
beside a manifest.json: a list of queries for each question, for `evaluate.py --candidates`.
"""

import argparse
import asyncio
import os
import time
from functools import partial
from pathlib import Path

from tree.candidates import draw_candidates
from tree.dpo_extractor import STRATEGIES, add_pair_flags, check_pair_flags, pair_settings
from tree.files import InputError, read_json, run_script, write_json_list
from tree.journal import Journal
from tree.manifest import Manifest, shard_of
from tree.model_folder import check_model_folder, model_fingerprint
from tree.pair_files import counts_line, pair_file, write_pairs
from tree.preflight import Work, check_gold, histogram, prepare_instances, prepare_prompts, select
from tree.progress import Progress
from tree.prompts import REVISIONS
from tree.schema_text import FORMATS
from tree.tree_builder import Growth, grow
from tree.tree_node import Question, tree_from_json, tree_to_json

ROOM_PER_LEVEL = 512  # tokens that a revision's prompt adds for each level above it


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    add = parser.add_argument_group("questions and files").add_argument
    add("--data", default="data/train/train.json", help="question file with ids (step 2)")
    add("--db_root", default="data/train/train_databases", help="folder of the databases: {db_id}/{db_id}.sqlite")
    add("--output_dir", default="output", help="folder to write to")
    add("--shard_id", type=int, default=0, help="which shard, from 0")
    add("--num_shards", type=int, default=1, help="how many shards share the questions")
    add("--limit", type=int, default=0, help="only so many questions, spread over the databases (0 = all)")
    add("--keep_empty_gold", action="store_true", help="keep questions whose gold query returns nothing")
    add("--no_gold", action="store_true", help="questions without gold: draw candidates only, with --max_depth 1")
    add("--dry_run", action="store_true", help="check everything and print what would be done, without an engine")

    add = parser.add_argument_group("prompts").add_argument
    add("--schema_format", choices=FORMATS, default=FORMATS[0], help="how the schema is written, see README")
    add("--no_values", action="store_true", help="do not show stored values that match the question")
    add(
        "--max_prompt_tokens",
        type=int,
        default=3584,
        help="longest prompt in tokens; a longer schema is shortened (0 = what the model reads). train.py reads 4096",
    )

    add = parser.add_argument_group("trees").add_argument
    add("--max_depth", type=int, default=3, help="levels of the tree; 1 = first attempts only")
    add("--num_roots", type=int, default=0, help="first attempts at a question (0 = as many as --sample_num)")
    add("--sample_num", type=int, default=4, help="revisions of each wrong query")
    add("--max_nodes", type=int, default=24, help="queries of a tree at most (0 = no bound)")
    add("--stop_after", type=int, default=0, help="ask for no more revisions after so many correct queries (0 = off)")
    add("--redraws", type=int, default=1, help="how often a repeated wrong query is drawn again (0 = off)")
    add("--revision", choices=REVISIONS, default=REVISIONS[0], help="what a request for a revision shows, see README")
    add("--feedback", choices=("own", "oracle"), default="own", help="oracle shows the expected rows (for ablation)")
    add("--seed", type=int, default=0, help="run seed; each request derives its own")

    add_pair_flags(parser)

    add = parser.add_argument_group("model and engine").add_argument
    add("--model", default="Qwen2.5-Coder-1.5B-Instruct", help="folder of the generator")
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
    add(
        "--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto", help="precision of the generator"
    )

    add = parser.add_argument_group("work in flight").add_argument
    add(
        "--trees_in_flight", type=int, default=0, help="questions worked on at the same time (0 = keep the engine full)"
    )
    add("--sql_workers", type=int, default=0, help="processes that execute SQL (0 = half of the cores, at most 16)")
    add("--sql_timeout", type=float, default=30.0, help="time limit of one query, in seconds")
    args = parser.parse_args(words)
    args.num_roots = args.num_roots or args.sample_num
    return args


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
        *("trees_in_flight", "sql_workers", "temperature", "top_k"),
    ):
        if getattr(args, name) < 0:
            raise InputError(f"--{name} {getattr(args, name)}: must not be negative")
    check_pair_flags(args)
    if not 0 <= args.shard_id < args.num_shards:
        raise InputError(f"--shard_id {args.shard_id}: must be from 0 to {args.num_shards - 1} (--num_shards)")
    if args.sql_timeout <= 0:
        raise InputError(f"--sql_timeout {args.sql_timeout}: must be positive")
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


def dry_run_lines(work: Work, lengths: list[int], shards: list[str], args: argparse.Namespace) -> list[str]:
    """What a run would do."""
    count = len(work.questions)
    return [
        *shards,
        f"shard {args.shard_id}: {count} questions to work on, {len(work.skipped)} skipped",
        f"prompts of {min(lengths)} to {max(lengths)} tokens:",
        *histogram(lengths),
        f"generations: from {count * args.num_roots} (first attempts only) to {count * most_nodes(args)} "
        f"(every query wrong and new), and redraws of repeated ones",
    ]


# --- growing --------------------------------------------------------------------------------------------------------


async def grow_all(work: Work, args: argparse.Namespace, generator, executor, journal: Journal) -> dict:
    """Grow every tree of the shard, many at a time, into the journal; returns the figures of the run."""
    from tree.generator import sequences_at_once
    from tree.sql_utils import database_path

    growth = Growth(
        max_depth=args.max_depth,
        num_roots=args.num_roots,
        sample_num=args.sample_num,
        max_nodes=args.max_nodes,
        stop_after=args.stop_after,
        redraws=args.redraws,
        revision=args.revision,
        feedback=args.feedback,
        seed=args.seed,
    )
    progress = Progress(len(work.questions), generator)

    async def sample(messages, n: int, seed: int):
        with progress.replies.hold(n):
            return await generator.sample(messages, n, seed)

    async def one(question: Question) -> None:
        path = database_path(args.db_root, question.db_id)

        async def judge(queries):
            with progress.queries.hold(len(queries)):
                return await executor.judge_all(path, queries, question.sql)

        tree = await grow(question, work.prompt(question), growth, sample, judge, generator.fits)
        tree.shortened = work.shortened[question.question_id].names()
        journal.append(tree_to_json(tree))
        progress.add(tree)

    # each takes the next question when its tree is done; twice what the engine needs, because trees wait for SQL too
    questions = iter(work.questions)
    in_flight = args.trees_in_flight or max(8, 2 * sequences_at_once(args.max_num_seqs) // args.sample_num)

    async def gardener() -> None:
        for question in questions:
            await one(question)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(in_flight, len(work.questions))):
            tasks.create_task(gardener())
    figures = progress.finish()
    print("\n".join(progress.lines(figures)))
    return figures


def write_results(
    work: Work, args: argparse.Namespace, journal: Journal, folder: Path, manifest: Manifest
) -> dict[str, int]:
    """all_trees.json and the pair files, with their manifests, from the journal; returns the counts of pairs."""
    write_json_list(folder / "all_trees.json", journal.read(work.questions))
    shard = shard_of(manifest.content)
    counts = {}
    for strategy in STRATEGIES:
        path = pair_file(args.output_dir, strategy, args.shard_id)
        trees = map(tree_from_json, journal.read(work.questions))
        pairs = write_pairs(path, trees, pair_settings(args, strategy), shard)
        print(counts_line(path, pairs))
        counts[f"{strategy}_pairs"] = pairs.pairs
    return counts


def make_run_folder(output_dir: str, shard_id: int) -> Path:
    """A new folder output_dir/tree_dataset/part{shard}/{YYYYmmdd_HHMMSS}."""
    parent = Path(output_dir) / "tree_dataset" / f"part{shard_id}"
    while True:
        folder = parent / time.strftime("%Y%m%d_%H%M%S")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            time.sleep(1)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}); check --output_dir") from None


def start_generator(args: argparse.Namespace, model: Path, tokenizer, longest: int, limit: int):
    """The engine, for prompts of `longest` tokens at most in a context of `limit`."""
    from tree.generator import EngineSettings, Generator, Sampling

    print(f"starting the engine with {model}", flush=True)
    needed = longest + (args.max_depth - 1) * ROOM_PER_LEVEL + args.max_tokens
    settings = EngineSettings(
        max_model_len=args.max_model_len or min(limit, needed),
        max_num_seqs=args.max_num_seqs,
        max_num_batched_tokens=args.max_num_batched_tokens,
        gpu_memory=args.gpu_memory,
        dtype=args.dtype,
        seed=args.seed,
    )
    return Generator(model, tokenizer, Sampling(args.temperature, args.top_p, args.top_k, args.max_tokens), settings)


async def run(args: argparse.Namespace, work: Work, shards: list[str], model: Path, manifest: Manifest) -> None:
    """One shard from questions to pair files, or to candidates where there is no gold."""
    from tree.cache import cache_folder
    from tree.generator import encode, load_tokenizer
    from tree.sql_utils import Executor

    workers = args.sql_workers or max(1, min(16, (os.cpu_count() or 2) // 2))
    # workers start before the engine takes the machine, and only when something is executed
    caches = {"gold_cache": cache_folder("gold"), "perturbed": cache_folder("perturbed")}
    with Executor(workers, args.sql_timeout, **caches) as executor:
        # --- gold queries, perturbed databases, prompts ---
        if not args.no_gold:
            await check_gold(work, executor, args)
            await prepare_instances(work, executor, args)
        tokenizer = load_tokenizer(model)
        limit = context_limit(args, model)
        lengths = prepare_prompts(work, partial(encode, tokenizer), longest_prompt(args, limit), args)
        kept = list(lengths.values())
        if args.dry_run:
            print("\n".join(dry_run_lines(work, kept, shards, args)))
            return
        folder = make_run_folder(args.output_dir, args.shard_id)
        print(f"shard {args.shard_id} of {args.num_shards}: {len(kept)} questions -> {folder}", flush=True)

        # --- engine ---
        generator = start_generator(args, model, tokenizer, max(kept), limit)
        try:
            # --- trees ---
            journal = Journal(folder / ("candidates.jsonl" if args.no_gold else "trees.jsonl"))
            if args.no_gold:
                figures = await draw_candidates(work, args, generator, journal)
            else:
                figures = await grow_all(work, args, generator, executor, journal)
        finally:
            generator.close()

    # --- files ---
    if args.no_gold:
        write_json_list(folder / "candidates.json", journal.read(work.questions))
        said = f"{figures['candidates']} candidates of {figures['questions']} questions in {folder / 'candidates.json'}"
    else:
        figures |= write_results(work, args, journal, folder, manifest)
        said = (
            f"{figures['trees']} trees ({figures['good']} good, {figures['bad']} bad), "
            f"{figures['nodes']} nodes ({figures['correct_nodes']} correct), {len(work.skipped)} questions skipped, "
            f"pairs: {figures['emerge_pairs']} emerge, {figures['baseline_pairs']} baseline"
        )
    manifest.write(folder / "manifest.json", **figures, skipped=len(work.skipped), skipped_questions=work.skipped)
    print(f"shard {args.shard_id}: {said}", flush=True)


def main() -> None:
    args = parse_arguments()

    # --- everything that can be wrong, before anything expensive ---
    check_settings(args)
    model = check_model_folder(args.model)
    context_limit(args, model)
    work, shards = select(args)
    manifest = Manifest(
        vars(args), {"data": args.data}, model=str(model), model_fingerprint=model_fingerprint(model), seed=args.seed
    )

    # --- the run ---
    asyncio.run(run(args, work, shards, model, manifest))


if __name__ == "__main__":
    run_script(main)
