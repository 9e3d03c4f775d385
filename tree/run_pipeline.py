"""Grow the revision trees of one shard of questions and extract their preference pairs (step 4.1).

    python -m tree.run_pipeline --data data/train/train.json --db_root data/train/train_databases \\
        --model Qwen2.5-Coder-3B-Instruct --output_dir output
    python -m tree.run_pipeline --data data/demo/train.json --db_root data/demo/train_databases \\
        --model Qwen2.5-Coder-0.5B-Instruct --limit 10 --max_depth 2       # a trial on a CPU
    python -m tree.run_pipeline --dry_run --gpu_gib 24          # what it would do on such a GPU, without an engine

A run that was killed goes on when the same command is given again; --fresh begins a new one.
`bash tree/run_parallel.sh` runs one such worker per GPU. Writes under --output_dir:
tree_dataset/part{shard}/{time}/all_trees.json with manifest.json beside it, and
final_data_emerge_shard_{shard}.json, final_data_baseline_shard_{shard}.json. With --no_gold only candidates.json
beside a manifest.json: a list of queries for each question, for `evaluate.py --candidates`.
"""

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean

from common.files import InputError, remove_leftovers, run_script, write_json, write_json_list
from common.locks import alone_in, among_as_many
from common.manifest import Manifest, pair_manifest_path, shard_of
from common.model_folder import check_model_folder, model_fingerprint
from tree.generator import (
    BATCHED_TOKENS,
    GPU_SEQUENCES,
    EngineDied,
    NoEngine,
    check_device,
    context_length,
    start_generator,
)
from tree.pairs.extraction import STRATEGIES, pair_settings
from tree.pairs.pair_files import counts_line, pair_file, write_pairs
from tree.run.attempts import Attempts, work_off
from tree.run.gpu_memory import first_card, fit, fit_lines, model_shape
from tree.run.journal import Journal
from tree.run.preflight import Work, check_gold, histogram, prepare_instances, prepare_prompts, select
from tree.run.progress import Progress
from tree.run.run_folder import StoredRun, find_run, make_run_folder, part_folder
from tree.run.settings import add_flags, check_settings, context_limit, longest_prompt, most_nodes
from tree.run.without_gold import draw_candidates
from tree.tree_builder import Growth, grow
from tree.tree_node import Question, tree_from_json, tree_to_json

CHANGED = "what is finished is kept: put them back to go on with the same command, or begin anew with --fresh"


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    args = parser.parse_args(words)
    args.num_roots = args.num_roots or args.sample_num
    return args


def memory_lines(lengths: list[int], args: argparse.Namespace, model: Path, limit: int) -> Iterator[str]:
    """What of the engine fits into the GPU that is here, or that --gpu_gib names; nothing without a GPU."""
    card = args.gpu_gib or first_card()
    if not card:
        if card is not None:
            yield "nvidia-smi does not tell the memory of this GPU, so what fits is not known: give it, --gpu_gib 24"
        return
    sequences = args.max_num_seqs or GPU_SEQUENCES
    batched = args.max_num_batched_tokens or BATCHED_TOKENS
    found = fit(model_shape(model, args.dtype), card, args.gpu_memory, batched, sequences)
    usual = round(fmean(lengths)) + args.max_tokens
    yield from fit_lines(found, card, args.gpu_memory, context_length(args, max(lengths), limit), usual, sequences)


def dry_run_lines(
    work: Work, lengths: list[int], shards: list[str], args: argparse.Namespace, model: Path, limit: int
) -> list[str]:
    """What a run would do."""
    count = len(work.questions)
    return [
        *shards,
        f"shard {args.shard_id}: {count} questions to work on, {len(work.skipped)} skipped",
        f"prompts of {min(lengths)} to {max(lengths)} tokens:",
        *histogram(lengths),
        f"generations: from {count * args.num_roots} (first attempts only) to {count * most_nodes(args)} "
        f"(every query wrong and new), and redraws of repeated ones",
        *memory_lines(lengths, args, model, limit),
    ]


# --- growing --------------------------------------------------------------------------------------------------------


async def grow_all(
    work: Work, args: argparse.Namespace, generator, executor, journal: Journal, attempts: Attempts
) -> dict:
    """Grow every tree of the shard, many at a time, into the journal; returns the figures of the run."""
    from tree.generator import sequences_at_once
    from tree.run.databases import check_unchanged
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
    grown = [question for question in work.questions if question.question_id in journal]
    fair = not (args.redraws or args.stop_after)
    progress = Progress(len(work.questions), generator, map(tree_from_json, journal.read(grown)), fair)

    async def sample(messages, n: int, seed: int):
        with progress.replies.hold(n):
            return await generator.sample(messages, n, seed)

    async def one(question: Question) -> dict:
        path = database_path(args.db_root, question.db_id)

        async def judge(queries):
            with progress.queries.hold(len(queries)):
                return await executor.judge_all(path, queries, question.sql)

        tree = await grow(question, work.prompt(question), growth, sample, judge, generator.fits)
        check_unchanged(args.db_root, {question.db_id: work.fingerprints[question.db_id]}, CHANGED)
        tree.shortened = work.shortened[question.question_id].names()
        progress.add(tree)
        return tree_to_json(tree)

    # twice what the engine needs, because trees wait for SQL too
    in_flight = args.trees_in_flight or max(8, 2 * sequences_at_once(args.max_num_seqs) // args.sample_num)
    with contextlib.closing(progress):
        await work_off(work.questions, in_flight, one, journal, attempts)
    figures = progress.finish()
    print("\n".join(progress.lines(figures)))
    return figures


# --- the run --------------------------------------------------------------------------------------------------------


async def prepare(work: Work, args: argparse.Namespace, executor, tokenizer) -> list[int]:
    """Gold queries, perturbed databases and prompts; the lengths of the prompts in tokens."""
    from tree.generator import encode
    from tree.run.databases import check_unchanged

    if not args.no_gold:
        await check_gold(work, executor, args)
        await prepare_instances(work, executor, args)
    lengths = prepare_prompts(work, partial(encode, tokenizer), args.db_root)
    work.report(f"{args.data}: every prompt is too long; use a larger --max_prompt_tokens or --max_model_len")
    check_unchanged(args.db_root, work.fingerprints, CHANGED)
    return list(lengths.values())


async def run(args: argparse.Namespace, work: Work, shards: list[str], manifest: Manifest, stored: StoredRun | None):
    """One shard from questions to pair files, or to candidates where there is no gold; goes on with a stored run."""
    from tree.generator import load_tokenizer
    from tree.sql.cache import cache_folder
    from tree.sql_utils import Executor

    model = Path(args.model)
    workers = args.sql_workers or max(1, min(16, (os.cpu_count() or 2) // 2))
    # workers start before the engine takes the machine, and only when something is executed
    caches = {"gold_cache": cache_folder("gold"), "perturbed": cache_folder("perturbed")}
    with Executor(workers, args.sql_timeout, **caches) as executor:
        # --- what is there to do ---
        tokenizer, limit = load_tokenizer(model), context_limit(args, model)
        lengths = await prepare(work, args, executor, tokenizer)
        if args.dry_run:
            print("\n".join(dry_run_lines(work, lengths, shards, args, model, limit)))
            return
        folder, journal, attempts = open_run(args, manifest, stored)
        set_aside(work, attempts)
        left = sum(question.question_id not in journal for question in work.questions)
        count = f"{len(work.questions)} questions" + (f", {left} of them left to work on" if stored else "")
        print(f"shard {args.shard_id} of {args.num_shards}: {count} -> {folder}", flush=True)

        # --- trees; the engine takes the same context for few questions that are left as for all ---
        generator = start_generator(args, model, tokenizer, max(lengths), limit) if left else NoEngine()
        try:
            with attempts.recording_crashes():
                if args.no_gold:
                    figures = await draw_candidates(work, args, generator, journal, attempts)
                else:
                    figures = await grow_all(work, args, generator, executor, journal, attempts)
        finally:
            generator.close()
    set_aside(work, attempts)

    # --- files ---
    figures |= write_results(work, args, journal, folder, manifest.content)
    manifest.write(folder / "manifest.json", **figures, skipped=len(work.skipped), skipped_questions=work.skipped)
    print(f"shard {args.shard_id}: {summary(figures, len(work.skipped), folder)}", flush=True)


def open_run(args: argparse.Namespace, manifest: Manifest, stored: StoredRun | None) -> tuple[Path, Journal, Attempts]:
    """The folder of a new or a stored run, what is finished there, and what was tried; it is marked as unfinished."""
    folder = stored.folder if stored else make_run_folder(part_folder(args.output_dir, args.shard_id))
    journal = Journal(journal_path(folder, args))
    attempts = Attempts(folder, journal)
    manifest.begin(folder / "manifest.json", stored.manifest if stored else None)
    return folder, journal, attempts


def set_aside(work: Work, attempts: Attempts) -> None:
    """Leave out the questions that failed or killed their worker again and again, loudly."""
    given_up = attempts.set_aside()
    work.skip(given_up)
    if given_up:
        print(f"warning: {len(given_up)} questions are set aside:")
    work.report("every question failed; the reasons are above, --fresh tries again")


# --- files ----------------------------------------------------------------------------------------------------------


def journal_path(folder: Path, args: argparse.Namespace) -> Path:
    return folder / ("candidates.jsonl" if args.no_gold else "trees.jsonl")


def write_results(work: Work, args: argparse.Namespace, journal: Journal, folder: Path, content: dict) -> dict:
    """From the journal: all_trees.json and the pair files with their manifests, or candidates.json.

    `content` is the run's manifest. Returns the counts of pairs.
    """
    result = folder / ("candidates.json" if args.no_gold else "all_trees.json")
    pair_files = {} if args.no_gold else {name: pair_file(args.output_dir, name, args.shard_id) for name in STRATEGIES}
    remove_leftovers(
        folder / "manifest.json", result, *pair_files.values(), *map(pair_manifest_path, pair_files.values())
    )
    write_json_list(result, journal.read(work.questions))
    counts = {}
    for strategy, path in pair_files.items():
        trees = map(tree_from_json, journal.read(work.questions))
        pairs = write_pairs(path, trees, pair_settings(args, strategy), shard_of(content))
        print(counts_line(path, pairs))
        counts[f"{strategy}_pairs"] = pairs.pairs
    return counts


def write_again(work: Work, args: argparse.Namespace, stored: StoredRun) -> None:
    """The files of a finished run from its journal, whatever became of them."""
    path = journal_path(stored.folder, args)
    print(f"{stored.folder} is finished: its files are written again from {path.name}, nothing is grown (see --fresh)")
    if not path.exists():
        raise InputError(f"{path}: no such file; begin anew with --fresh")
    journal = Journal(path)
    work.questions = [question for question in work.questions if question.question_id in journal]
    write_results(work, args, journal, stored.folder, stored.manifest)
    write_json(stored.folder / "manifest.json", stored.manifest)  # the newest of the shard again
    counts = stored.manifest["counts"]
    print(f"shard {args.shard_id}: {summary(counts, counts['skipped'], stored.folder)}", flush=True)


def summary(figures: dict, skipped: int, folder: Path) -> str:
    """What a run gave, in one line."""
    if "candidates" in figures:
        path = folder / "candidates.json"
        return f"{figures['candidates']} candidates of {figures['questions']} questions in {path}"
    return (
        f"{figures['trees']} trees ({figures['good']} good, {figures['bad']} bad), "
        f"{figures['nodes']} nodes ({figures['correct_nodes']} correct), {skipped} questions skipped, "
        f"pairs: {figures['emerge_pairs']} emerge, {figures['baseline_pairs']} baseline"
    )


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)

    # --- everything that can be wrong, before anything expensive ---
    check_settings(args)
    if not args.dry_run:
        check_device()
    model = check_model_folder(args.model)
    args.max_prompt_tokens = longest_prompt(args, context_limit(args, model))  # as the manifest is to record it
    work, shards = select(args)
    manifest = Manifest(
        vars(args),
        {"data": args.data},
        databases=work.fingerprints,
        model=str(model),
        model_fingerprint=model_fingerprint(model),
        seed=args.seed,
    )

    # --- the run ---
    part = part_folder(args.output_dir, args.shard_id)
    if args.dry_run:
        stored = None if args.fresh else find_run(part, manifest.content)
        if stored:
            print(f"{stored.folder} holds this run, {'finished' if stored.finished else 'to be gone on with'}")
        asyncio.run(run(args, work, shards, manifest, stored))
        return
    with alone_in(part), among_as_many(part.parent, args.num_shards):
        stored = None if args.fresh else find_run(part, manifest.content)
        if stored and stored.finished:
            write_again(work, args, stored)
            return
        try:
            asyncio.run(run(args, work, shards, manifest, stored))
        except EngineDied as death:
            sys.exit(f"error: {death}; what is finished is kept, the same command goes on with the rest")


if __name__ == "__main__":
    run_script(main)
