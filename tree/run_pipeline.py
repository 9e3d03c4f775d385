"""Grow the revision trees of one shard of questions and extract their preference pairs (step 4.1).

    python -m tree.run_pipeline --data data/train/train.json --db_root data/train/train_databases \\
        --model Qwen2.5-Coder-1.5B-Instruct --output_dir output
    python -m tree.run_pipeline --data data/demo/train.json --db_root data/demo/train_databases \\
        --model Qwen2.5-Coder-0.5B-Instruct --limit 10 --max_depth 2       # a trial on a CPU

`bash tree/run_parallel.sh` runs one such worker per GPU. Writes under --output_dir:
tree_dataset/part{shard}/{time}/all_trees.json with manifest.json beside it, and
final_data_emerge_shard_{shard}.json, final_data_baseline_shard_{shard}.json.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tree.dpo_extractor import STRATEGIES, extract_pairs
from tree.files import InputError, read_json, run_script, write_json_list
from tree.manifest import Manifest
from tree.model_folder import check_model_folder, model_fingerprint
from tree.prompts import chat, task_prompt
from tree.questions import limited, load_questions, shard
from tree.tree_node import Question, RevisionTree, tree_from_json, tree_to_json

SLOW_GOLD = 5.0  # seconds from which a gold query is listed


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", default="data/train/train.json", help="question file with ids (step 2)")
    add("--db_root", default="data/train/train_databases", help="folder of the databases: {db_id}/{db_id}.sqlite")
    add("--model", default="Qwen2.5-Coder-1.5B-Instruct", help="folder of the generator")
    add("--output_dir", default="output", help="folder to write to")
    add("--shard_id", type=int, default=0, help="which shard, from 0")
    add("--num_shards", type=int, default=1, help="how many shards share the questions")
    add("--limit", type=int, default=0, help="only so many questions, spread over the databases (0 = all)")
    add("--max_depth", type=int, default=3, help="levels of the tree; 1 = first attempts only")
    add(
        "--sample_num",
        type=int,
        default=4,
        help="samples of each prompt: first attempts, and revisions per wrong query",
    )
    add("--temperature", type=float, default=0.8, help="sampling temperature (0 = greedy, with --sample_num 1)")
    add("--top_p", type=float, default=0.95, help="nucleus sampling mass (1 = off)")
    add("--max_tokens", type=int, default=512, help="longest reply, in tokens")
    add("--max_model_len", type=int, default=16_384, help="longest prompt plus reply, in tokens")
    add("--gpu_memory", type=float, default=0.9, help="share of the GPU's memory for the engine (no effect on a CPU)")
    add("--trees_in_flight", type=int, default=256, help="questions worked on at the same time")
    add("--sql_workers", type=int, default=0, help="processes that execute SQL (0 = half of the cores, at most 16)")
    add("--sql_timeout", type=float, default=30.0, help="time limit of one query, in seconds")
    add("--feedback", choices=("own", "oracle"), default="own", help="oracle shows the expected rows (for ablation)")
    add("--match", choices=("strict", "ex"), default="strict", help="verdict that a correct chosen query must have")
    add("--keep_empty_gold", action="store_true", help="keep questions whose gold query returns nothing")
    add("--seed", type=int, default=0, help="run seed; each request derives its own")
    return parser.parse_args()


def check_settings(args: argparse.Namespace) -> None:
    """Raise InputError for a setting out of its range."""
    for name in ("num_shards", "max_depth", "sample_num", "max_tokens", "trees_in_flight"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: must be 1 or more")
    if not 0 <= args.shard_id < args.num_shards:
        raise InputError(f"--shard_id {args.shard_id}: must be from 0 to {args.num_shards - 1} (--num_shards)")
    if args.limit < 0 or args.sql_workers < 0 or args.temperature < 0 or args.sql_timeout <= 0:
        raise InputError(
            "--limit, --sql_workers and --temperature must not be negative, --sql_timeout must be positive"
        )
    if not 0 < args.top_p <= 1 or not 0 < args.gpu_memory <= 1:
        raise InputError("--top_p and --gpu_memory must be above 0 and at most 1")
    if args.temperature == 0 and args.sample_num > 1:
        raise InputError(
            "--temperature 0 gives the same reply every time; set --sample_num 1, or a temperature above 0"
        )
    if args.max_model_len <= args.max_tokens:
        raise InputError(f"--max_model_len {args.max_model_len} leaves no room beside --max_tokens {args.max_tokens}")


@dataclass
class Shard:
    """The questions of a run: those to work on, their prompts, and those left out with the reason."""

    questions: list[Question]
    prompts: dict[int, str] = field(default_factory=dict)
    skipped: list[dict] = field(default_factory=list)
    reported: int = 0

    def skip(self, question: Question, reason: str) -> None:
        self.questions.remove(question)
        self.skipped.append({"question_id": question.question_id, "db_id": question.db_id, "reason": reason})

    def report(self, nothing_left: str) -> None:
        """Print what was skipped since the last report. Raises InputError when no question is left."""
        for entry in self.skipped[self.reported :]:
            print(f"skipped question {entry['question_id']} ({entry['db_id']}): {entry['reason']}")
        self.reported = len(self.skipped)
        if not self.questions:
            raise InputError(nothing_left)


def select(args: argparse.Namespace) -> Shard:
    """The questions of this shard, their databases checked, before anything expensive starts."""
    from tree.sql_utils import check_database, database_path

    questions = load_questions(args.data)
    if args.limit:
        questions = limited(questions, args.limit)
    for db_id in sorted({question.db_id for question in questions}):
        check_database(database_path(args.db_root, db_id))
    return Shard(shard(questions, args.shard_id, args.num_shards))


async def preflight(work: Shard, executor, args: argparse.Namespace) -> None:
    """Run every gold query once; questions whose gold fails or returns nothing leave the shard, with the reason."""
    from tqdm.asyncio import tqdm

    from tree.sql_utils import database_path

    runs = [executor.run_gold(database_path(args.db_root, question.db_id), question.sql) for question in work.questions]
    results = await tqdm.gather(*runs, desc="gold queries", unit="query")
    for question, gold in zip(list(work.questions), results, strict=True):
        if gold.seconds > SLOW_GOLD:
            print(f"slow gold query: question {question.question_id} ({question.db_id}) took {gold.seconds:.1f} s")
        if gold.outcome == "empty" and not args.keep_empty_gold:
            work.skip(question, "gold query returns nothing")
        elif gold.outcome not in ("ok", "empty"):
            work.skip(question, f"gold query: {gold.outcome} ({gold.error[:200]})")


def write_prompts(work: Shard, db_root: str) -> None:
    """Fill in the initial task of every question."""
    from tree.sandbox import connect
    from tree.schema import schema_text
    from tree.sql_utils import database_path

    schemas = {}
    for db_id in {question.db_id for question in work.questions}:
        with closing(connect(database_path(db_root, db_id))) as connection:
            # bytes that are not UTF-8 cannot be tokenized or stored as JSON, so they are shown escaped
            schemas[db_id] = schema_text(connection).encode("utf-8", "backslashreplace").decode()
    for question in work.questions:
        work.prompts[question.question_id] = task_prompt(schemas[question.db_id], question.question, question.evidence)


class Journal:
    """Finished trees, one JSON line each, on disk before they count; read back in the questions' order."""

    def __init__(self, path: Path):
        self._file = path.open("x+b")
        self._places: dict[int, int] = {}

    def append(self, tree: RevisionTree) -> None:
        self._places[tree.question.question_id] = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(tree_to_json(tree), ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def trees(self, questions: Sequence[Question]) -> Iterator[dict]:
        for question in questions:
            self._file.seek(self._places[question.question_id])
            yield json.loads(self._file.readline())


async def grow_all(work: Shard, args: argparse.Namespace, generator, executor, journal: Journal) -> Counter:
    """Grow every tree of the shard, many at a time, into the journal; returns the counts of what grew."""
    from tqdm import tqdm

    from tree.sql_utils import database_path
    from tree.tree_builder import Growth, grow

    growth = Growth(args.max_depth, args.sample_num, args.feedback, args.seed)
    places = asyncio.Semaphore(args.trees_in_flight)
    counts: Counter = Counter()
    start = time.perf_counter()
    bar = tqdm(total=len(work.questions), desc="trees", unit="tree", mininterval=1)

    async def one(question: Question) -> None:
        path = database_path(args.db_root, question.db_id)
        async with places:
            tree = await grow(
                question,
                work.prompts[question.question_id],
                growth,
                generator.sample,
                lambda queries: executor.judge_all(path, queries, question.sql),
                generator.fits,
            )
        journal.append(tree)
        counts.update(trees=1, good=int(tree.good), bad=int(not tree.good), nodes=len(tree.nodes))
        counts.update(f"outcome {node.outcome}" for node in tree.nodes.values())
        counts.update(correct_nodes=sum(node.is_correct for node in tree.nodes.values()))
        rate = generator.output_tokens / (time.perf_counter() - start)
        bar.set_postfix_str(
            f"good {counts['good']}, bad {counts['bad']}, nodes {counts['nodes']}, {rate:.0f} tokens/s", refresh=False
        )
        bar.update()

    async with asyncio.TaskGroup() as tasks:
        for question in work.questions:
            tasks.create_task(one(question))
    bar.close()
    return counts


def skip_long_prompts(work: Shard, generator, max_model_len: int) -> None:
    """Questions whose prompt leaves no room for a reply leave the shard, with the reason."""
    for question in list(work.questions):
        if not generator.fits(chat(work.prompts[question.question_id])):
            work.skip(question, f"prompt longer than --max_model_len {max_model_len} allows")


def write_results(work: Shard, args: argparse.Namespace, journal: Journal, folder: Path) -> Counter:
    """all_trees.json and the pair files from the journal; returns the counts of pairs."""
    write_json_list(folder / "all_trees.json", journal.trees(work.questions))
    counts: Counter = Counter()
    for strategy in STRATEGIES:
        pairs = (
            pair.to_json()
            for tree in journal.trees(work.questions)
            for pair in extract_pairs(tree_from_json(tree), strategy, args.match)
        )
        path = Path(args.output_dir) / f"final_data_{strategy}_shard_{args.shard_id}.json"
        counts[f"{strategy}_pairs"] = write_json_list(path, pairs)
    return counts


async def run(args: argparse.Namespace, work: Shard, model: Path, folder: Path) -> Counter:
    """One shard from questions to pair files; returns the counts."""
    from tree.gold_cache import default_folder
    from tree.sql_utils import Executor

    workers = args.sql_workers or max(1, min(16, (os.cpu_count() or 2) // 2))
    with Executor(
        workers, args.sql_timeout, gold_cache=default_folder()
    ) as executor:  # workers start before the engine takes the machine
        # --- gold queries and prompts ---
        await preflight(work, executor, args)
        write_prompts(work, args.db_root)
        work.report(f"{args.data}: no question has a gold query that runs and returns rows")

        # --- engine ---
        from tree.generator import Generator, Sampling

        print(f"starting the engine with {model}", flush=True)
        sampling = Sampling(args.temperature, args.top_p, args.max_tokens)
        generator = Generator(model, sampling, args.max_model_len, args.gpu_memory, args.seed)
        try:
            skip_long_prompts(work, generator, args.max_model_len)
            work.report(f"{args.data}: every prompt is too long; raise --max_model_len")

            # --- trees ---
            journal = Journal(folder / "trees.jsonl")
            start = time.perf_counter()
            counts = await grow_all(work, args, generator, executor, journal)
            counts["seconds_growing"] = round(time.perf_counter() - start)
            counts.update(generator.counts())
        finally:
            generator.close()

    # --- files ---
    counts.update(write_results(work, args, journal, folder))
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


def main() -> None:
    args = parse_arguments()

    # --- everything that can be wrong, before anything expensive ---
    check_settings(args)
    model = check_model_folder(args.model)
    longest = read_json(model / "config.json", dict).get("max_position_embeddings", args.max_model_len)
    if args.max_model_len > longest:
        raise InputError(f"--max_model_len {args.max_model_len}: {model} reads at most {longest} tokens")
    work = select(args)
    if not work.questions:
        raise InputError(f"shard {args.shard_id} of {args.num_shards} has no questions; use fewer shards")
    manifest = Manifest(
        vars(args), {"data": args.data}, model=str(model), model_fingerprint=model_fingerprint(model), seed=args.seed
    )
    folder = make_run_folder(args.output_dir, args.shard_id)
    print(f"shard {args.shard_id} of {args.num_shards}: {len(work.questions)} questions -> {folder}", flush=True)

    # --- the run ---
    counts = asyncio.run(run(args, work, model, folder))
    manifest.write(folder / "manifest.json", **counts, skipped=len(work.skipped), skipped_questions=work.skipped)
    print(
        f"shard {args.shard_id}: {counts['trees']} trees ({counts['good']} good, {counts['bad']} bad), "
        f"{counts['nodes']} nodes ({counts['correct_nodes']} correct), {len(work.skipped)} questions skipped, "
        f"pairs: {counts['emerge_pairs']} emerge, {counts['baseline_pairs']} baseline"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    run_script(main)
