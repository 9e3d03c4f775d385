"""Grow the revision trees of one shard of questions and extract their preference pairs (step 4.1).

    python -m tree.run_pipeline --data data/train/train.json --db_root data/train/train_databases \\
        --model Qwen2.5-Coder-3B-Instruct --output_dir output
    python -m tree.run_pipeline --data data/demo/train.json --db_root data/demo/train_databases \\
        --model Qwen2.5-Coder-0.5B-Instruct --limit 10 --max_depth 2       # a trial on a CPU
    python -m tree.run_pipeline --dry_run --gpu_gib 24          # what it would do on such a GPU, without an engine

A run that was killed is resumed when the same command is given again; --fresh begins a new one.
`bash tree/run_parallel.sh` runs one such worker per GPU. Writes under --output_dir:
tree_dataset/part{shard}/{time}/all_trees.json with manifest.json beside it, and
final_data_emerge_shard_{shard}.json, final_data_baseline_shard_{shard}.json. With --no_gold only candidates.json
beside a manifest.json: a list of queries for each question, for `evaluate.py --candidates`.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import (
    InputError,
    JsonList,
    remove_leftovers,
    replacing_together,
    run_script,
    write_json,
    write_json_list,
)
from common.locks import alone_in, among_as_many
from common.manifest import Manifest
from common.model_folder import model_fingerprint
from tree.generator import (
    Generator,
    NoEngine,
    check_device,
    encode,
    load_tokenizer,
    sequences_at_once,
)
from tree.pairs.extraction import STRATEGIES, PairSettings
from tree.pairs.pair_files import PairWriter, counts_line, kinds_of_pairs, pair_file, pair_manifest_path
from tree.pairs.shard import shard_of
from tree.prompts import Message
from tree.replies import Reply
from tree.run.databases import RESUME, check_unchanged
from tree.run.dry_run import dry_run_lines
from tree.run.preflight import check_gold, prepare_instances, prepare_prompts
from tree.run.progress import Progress
from tree.run.question_log import QuestionLog
from tree.run.reviser import reviser_inputs, warn_of_overlap
from tree.run.run_folder import StoredRun, find_run, make_run_folder, part_folder
from tree.run.settings import RunSettings, parse_arguments, run_settings
from tree.run.without_gold import draw_candidates
from tree.run.work_list import WorkList, select
from tree.run.workers import leave_out_quarantined, run_questions, run_whole
from tree.sql.cache import cache_folder
from tree.sql.results import Verdict
from tree.sql_utils import Executor
from tree.tree_builder import grow
from tree.tree_node import Question, tree_from_json, tree_to_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# --- from a question to its tree ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grower:
    """Grows the trees of a shard: `generator` writes their queries, `executor` runs these and compares with gold."""

    work: WorkList
    settings: RunSettings
    generator: Generator
    executor: Executor
    progress: Progress

    async def tree_of(self, question: Question) -> dict:
        """The tree of a question, as its line of `trees.jsonl`."""
        task = self.work.prompt(question)
        judge = partial(self._judge, question)
        tree = await grow(question, task, self.settings.tree, self._sample, judge, self.generator.fits)
        fingerprint = self.work.fingerprints[question.db_id]
        check_unchanged(self.settings.db_root, {question.db_id: fingerprint}, RESUME)
        tree.shortened = self.work.shortened[question.question_id].names()
        self.progress.add(tree)
        return tree_to_json(tree)

    async def _sample(self, messages: Sequence[Message], n: int, seed: int, revises: bool) -> list[Reply]:
        with self.progress.replies.hold(n):
            return await self.generator.sample(messages, n, seed, revises)

    async def _judge(self, question: Question, queries: Sequence[str]) -> list[Verdict]:
        with self.progress.queries.hold(len(queries)):
            return await self.executor.judge_all(self.work.database(question.db_id), queries, question.sql)


async def grow_all(
    work: WorkList, settings: RunSettings, generator: Generator, executor: Executor, log: QuestionLog
) -> dict:
    """Grow every tree of the shard, many at a time, into the log; returns the figures of the run."""
    grown = map(tree_from_json, log.read(work.questions))
    # twice what the engine needs, because trees wait for SQL too
    width = max(settings.tree.num_roots, settings.tree.sample_num)
    at_once = max(8, 2 * sequences_at_once(settings.engine.max_num_seqs) // width)
    with contextlib.closing(Progress(len(work.questions), generator, grown)) as progress:
        grower = Grower(work, settings, generator, executor, progress)
        await run_questions(work.questions, grower.tree_of, log, at_once)
    figures = progress.finish()
    print("\n".join(progress.lines(figures)))
    return figures


# --- from trees to files --------------------------------------------------------------------------------------------


def log_path(folder: Path, settings: RunSettings) -> Path:
    return folder / ("candidates.jsonl" if settings.no_gold else "trees.jsonl")


def write_results(
    questions: Sequence[Question], settings: RunSettings, log: QuestionLog, folder: Path, manifest: dict
) -> dict[str, int]:
    """What the log holds, as the files of the run whose manifest has that content; returns the counts of pairs."""
    remove_leftovers(folder / "manifest.json")
    if settings.no_gold:
        remove_leftovers(folder / "candidates.json")
        write_json_list(folder / "candidates.json", log.read(questions))
        return {}
    trees = folder / "all_trees.json"
    pair_files = {name: pair_file(settings.output_dir, name, settings.shard_id) for name in STRATEGIES}
    remove_leftovers(trees, *pair_files.values(), *map(pair_manifest_path, pair_files.values()))
    writers = write_trees_and_pairs(log.read(questions), settings.pairs, trees, pair_files)
    counts = {}
    for strategy, path in pair_files.items():
        pairs = writers[strategy].write_manifest(path, shard_of(manifest))
        print(counts_line(path, pairs))
        counts[f"{strategy}_pairs"] = pairs.pairs
        counts[f"{strategy}_rejecting_rows"] = pairs.rejecting_rows
        counts[f"{strategy}_between_wrong"] = pairs.between_wrong
    return counts


def write_trees_and_pairs(
    stored: Iterable[dict], settings: PairSettings, trees: Path, pair_files: dict[str, Path]
) -> dict[str, PairWriter]:
    """Replace all_trees.json and the pair file of each strategy, together, with one stored tree in memory at a time."""
    with replacing_together(trees, *pair_files.values()) as (tree_file, *files):
        rows = JsonList(tree_file)
        writers = [
            PairWriter(file, replace(settings, strategy=name)) for name, file in zip(pair_files, files, strict=True)
        ]
        for content in stored:
            rows.add(content)
            tree = tree_from_json(content)
            for writer in writers:
                writer.add(tree)
        for written in (rows, *writers):
            written.end()
    return dict(zip(pair_files, writers, strict=True))


def write_again(work: WorkList, settings: RunSettings, stored: StoredRun) -> None:
    """The files of a finished run from its log, whatever became of them."""
    path = log_path(stored.folder, settings)
    print(f"{stored.folder} is finished: its files are written again from {path.name}, nothing is grown (see --fresh)")
    if not path.exists():
        raise InputError(f"{path}: no such file; begin anew with --fresh")
    log = QuestionLog(path)
    counts = stored.manifest["counts"] | write_results(work.questions, settings, log, stored.folder, stored.manifest)
    # the newest of the shard again
    write_json(stored.folder / "manifest.json", stored.manifest | {"counts": counts})
    print(summary(counts, counts["skipped"], settings, stored.folder), flush=True)


def summary(figures: dict, skipped: int, settings: RunSettings, folder: Path) -> str:
    """What a run gave, in one line."""
    if settings.no_gold:
        path = folder / "candidates.json"
        gave = f"{figures['candidates']} candidates of {figures['questions']} questions in {path}"
    else:
        kinds = kinds_of_pairs(figures["emerge_rejecting_rows"], figures["emerge_between_wrong"])
        gave = (
            f"{figures['trees']} trees ({figures['good']} good, {figures['bad']} bad), "
            f"{figures['nodes']} nodes ({figures['correct_nodes']} correct), {skipped} questions skipped, "
            f"pairs: {figures['emerge_pairs']} emerge ({kinds}), {figures['baseline_pairs']} baseline"
        )
    return f"shard {settings.shard_id}: {gave}"


# --- the run --------------------------------------------------------------------------------------------------------


def sql_workers(settings: RunSettings) -> Executor:
    """The processes that execute SQL; they start when something is executed."""
    caches = {"gold_cache": cache_folder("gold"), "perturbed": cache_folder("perturbed")}
    return Executor(settings.sql.workers, settings.sql.timeout, **caches)


async def prepare(
    work: WorkList, settings: RunSettings, executor: Executor, tokenizer: "PreTrainedTokenizerBase"
) -> list[int]:
    """Gold queries, perturbed databases and prompts; the lengths of the prompts in tokens."""
    if not settings.no_gold:
        await check_gold(work, executor, settings.keep_empty_gold)
        await prepare_instances(work, executor)
    lengths = prepare_prompts(work, partial(encode, tokenizer))
    work.report("every prompt is too long; use a larger --max_prompt_tokens or --max_model_len")
    warn_of_overlap(settings.engine.reviser, work)
    check_unchanged(settings.db_root, work.fingerprints, RESUME)
    return list(lengths.values())


async def dry_run(work: WorkList, settings: RunSettings) -> None:
    """Check everything that a run needs but the engine, and print what it would do."""
    with sql_workers(settings) as executor:
        lengths = await prepare(work, settings, executor, load_tokenizer(settings.model))
    print("\n".join(dry_run_lines(work, lengths, settings)))


async def run(work: WorkList, settings: RunSettings, manifest: Manifest, stored: StoredRun | None) -> None:
    """One shard from questions to pair files, or to candidates where there is no gold; resumes a stored run."""
    # SQL workers start before the engine takes the machine
    with sql_workers(settings) as executor:
        # --- what there is to do ---
        tokenizer = load_tokenizer(settings.model)
        lengths = await prepare(work, settings, executor, tokenizer)
        folder = stored.folder if stored else make_run_folder(part_folder(settings.output_dir, settings.shard_id))
        log = QuestionLog(log_path(folder, settings))
        log.start()
        manifest.begin(folder / "manifest.json", stored.manifest if stored else None)
        leave_out_quarantined(work, log)
        left = len(log.unfinished(work.questions))
        count = f"{len(work.questions)} questions" + (f", {left} of them left to work on" if stored else "")
        print(f"shard {settings.shard_id} of {settings.num_shards}: {count} -> {folder}", flush=True)

        # --- trees; the engine takes the same context for few questions that are left as for all ---
        engine = settings.engine_for(max(lengths))
        generator = Generator(settings.model, tokenizer, settings.sampling, engine) if left else NoEngine()
        try:
            with log.recording_crashes():
                if settings.no_gold:
                    figures = await draw_candidates(work, settings, generator, log)
                else:
                    figures = await grow_all(work, settings, generator, executor, log)
        finally:
            generator.close()
    leave_out_quarantined(work, log)

    # --- files ---
    figures |= write_results(work.questions, settings, log, folder, manifest.content)
    manifest.write(folder / "manifest.json", **figures, skipped=len(work.skipped), skipped_questions=work.skipped)
    print(summary(figures, len(work.skipped), settings, folder), flush=True)


def main(words: list[str] | None = None) -> None:
    # --- everything that can be wrong, before anything expensive ---
    args = parse_arguments(words, __doc__)
    if not args.dry_run:
        check_device()
    settings = run_settings(args)
    work, shard_lines = select(settings)
    manifest = Manifest(
        settings.arguments,
        {"data": settings.data} | reviser_inputs(settings.engine.reviser),
        databases=work.fingerprints,
        model=str(settings.model),
        model_fingerprint=model_fingerprint(settings.model),
        seed=settings.tree.seed,
    )

    # --- the run ---
    part = part_folder(settings.output_dir, settings.shard_id)
    if settings.dry_run:
        stored = None if settings.fresh else find_run(part, manifest.content)
        if stored:
            print(f"{stored.folder} holds this run, {'finished' if stored.finished else 'to be resumed'}")
        print("\n".join(shard_lines))
        asyncio.run(dry_run(work, settings))
        return
    with alone_in(part), among_as_many(part.parent, settings.num_shards):
        stored = None if settings.fresh else find_run(part, manifest.content)
        if stored and stored.finished:
            write_again(work, settings, stored)
            return
        run_whole(run(work, settings, manifest, stored))


if __name__ == "__main__":
    run_script(main)
