"""What growing trees costs: against the engine's own limit, against the common way, and with more questions.

    python -m bench.tree_growth --model Qwen2.5-Coder-0.5B-Instruct            # the bundled demo, or BIRD in data/train
    python -m bench.tree_growth --model Qwen2.5-Coder-0.5B-Instruct --data train.json --db_root train_databases \\
        --per_database 4 --questions 48 --many 192

One engine serves everything, its prefix cache emptied before each measurement; times are from after its start. Trees
grow as `python -m tree.run_pipeline` grows them with its default settings, except for what is given here.

(a) limit: the pipeline's requests are recorded and sent again all at once (same prompts, n and seeds); wall time of
    that over the pipeline's, each per output token, because batching in another order changes a few replies.
(b) common way: one tree after another, level by level; a prompt repeated and computed for each sample; a revision's
    prompt begins with the feedback, so that it shares nothing with the first; a pool spawned per level, gold executed
    again for each candidate. Measured on fewer questions, as nodes per second. A second figure lets it read vLLM's
    prefix cache, which then finds the repeated prompts.
(c) linear: questions per second with few and with many questions (whole databases of equal size), and how the
    memory of this process grows while trees finish.
Also printed: how many replies the engine repeats for the same seed, and how many trees are the same when fewer are
in flight.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from statistics import median

from bench.sql_execution import Candidate, common_task
from common.files import InputError, run_script
from common.model_folder import check_model_folder
from tree import prompts, run_pipeline
from tree.generator import ROOM_PER_LEVEL, EngineSettings, Generator, encode, load_tokenizer
from tree.questions import by_database, load_questions
from tree.replies import Reply, extract_sql
from tree.run.databases import database_fingerprints
from tree.run.preflight import check_gold, prepare_prompts
from tree.run.question_log import QuestionLog
from tree.run.settings import RunSettings, run_settings
from tree.run.settings import parse_arguments as parse_run_arguments
from tree.run.work_list import WorkList
from tree.sql_utils import Executor, check_database, database_path
from tree.tree_node import Question


def choose(questions: Sequence[Question], count: int, per_database: int) -> list[Question]:
    """`count` questions, `per_database` of each database; a smaller count gives a part of a larger."""
    groups = {
        db_id: sorted(group, key=lambda question: sha256(str(question.question_id).encode()).digest())[:per_database]
        for db_id, group in groupby(by_database(questions), key=lambda question: question.db_id)
    }
    whole = [db_id for db_id, group in groups.items() if len(group) == per_database]
    drawn = sorted(whole, key=lambda db_id: sha256(db_id.encode()).digest())
    return [question for db_id in drawn for question in groups[db_id]][:count]


class Recorder:
    """A generator that remembers its requests and replies."""

    def __init__(self, generator: Generator):
        self.generator, self.fits, self.counts = generator, generator.fits, generator.counts
        self.requests: list[tuple] = []
        self.replies: list[list[Reply]] = []

    async def sample(self, messages, n: int, seed: int, revises: bool) -> list[Reply]:
        replies = await self.generator.sample(messages, n, seed, revises)
        self.requests.append((messages, n, seed, revises))
        self.replies.append(replies)
        return replies


class MeasuredLog(QuestionLog):
    """A log that notes this process's memory in MB after each tree."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.memory: list[float] = []

    def finished(self, content: dict) -> None:
        super().finished(content)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def growth(self) -> float:
        """MB from the first half of the trees to the last quarter, medians."""
        half, quarter = len(self.memory) // 2, max(1, len(self.memory) // 4)
        return median(self.memory[-quarter:]) - median(self.memory[half - quarter : half] or self.memory)


class WithoutPrefixCache(Generator):
    """The same engine; its requests compute their whole prompt."""

    def __init__(self, generator: Generator):
        self.__dict__ = generator.__dict__

    def parameters(self, n: int, seed: int):
        parameters = super().parameters(n, seed)
        parameters.skip_reading_prefix_cache = True
        return parameters


async def empty_cache(generator: Generator) -> None:
    await generator._engine.reset_prefix_cache()


async def pipeline(work: WorkList, settings: RunSettings, generator, executor) -> tuple[dict, MeasuredLog, list[dict]]:
    """Grow the trees as the pipeline does; its figures, log and trees."""
    with tempfile.TemporaryDirectory() as folder:
        log = MeasuredLog(Path(folder) / "trees.jsonl")
        start = time.perf_counter()
        log.start()
        figures = await run_pipeline.grow_all(work, settings, generator, executor, log)
        figures["seconds"] = time.perf_counter() - start
        return figures, log, list(log.read(work.questions))


async def replay(generator: Generator, requests: Sequence[tuple]) -> tuple[float, list[list[Reply]]]:
    """Seconds of all requests at once, and the replies."""
    await empty_cache(generator)
    start = time.perf_counter()
    replies = await asyncio.gather(*(generator.sample(*request) for request in requests))
    return time.perf_counter() - start, replies


def tokens_of(replies: Sequence[Sequence[Reply]]) -> int:
    return sum(reply.tokens for group in replies for reply in group)


async def common_way(work: WorkList, settings: RunSettings, generator: Generator) -> tuple[float, int]:
    """Seconds and nodes of the common way."""
    await empty_cache(generator)
    start, nodes = time.perf_counter(), 0
    tree = settings.tree
    for question in work.questions:
        path, task = work.database(question.db_id), work.prompt(question)
        open_prompts, grown = [task], 0
        for depth in range(tree.max_depth):
            width = tree.sample_num if depth else tree.num_roots
            if tree.max_nodes:
                open_prompts = open_prompts[: max(0, tree.max_nodes - grown) // width]
            seeds = iter(range(len(open_prompts) * width))
            requests = [(prompts.chat(text), 1, next(seeds)) for text in open_prompts for _ in range(width)]
            replies = await asyncio.gather(*(generator.sample(*request) for request in requests))
            queries = [extract_sql(reply.text) for (reply,) in replies]
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                right = pool.map(common_task, [Candidate(path, question.sql, sql) for sql in queries])
            grown += len(queries)
            wrong = [sql for sql, correct in zip(queries, right, strict=True) if not correct]
            open_prompts = [f"This query is wrong: {sql}\nWrite another one.\n\n{task}" for sql in wrong]
        nodes += grown
    return time.perf_counter() - start, nodes


# --- the report -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GrowthBench:
    """The flags, by name."""

    model: str
    data: str
    db_root: str
    questions: int
    many: int
    common: int
    per_database: int
    rounds: int
    max_depth: int
    max_tokens: int


def parse_arguments(words: list[str] | None = None) -> GrowthBench:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = "data/train" if Path("data/train/train.json").is_file() else "data/demo"
    parser.add_argument("--model", default="Qwen2.5-Coder-0.5B-Instruct", help="folder of the generator")
    parser.add_argument("--data", default=f"{home}/train.json", help="question file with ids")
    parser.add_argument("--db_root", default=f"{home}/train_databases", help="folder of the databases")
    parser.add_argument("--questions", type=int, default=48, help="questions of (a) and the fewer of (c)")
    parser.add_argument("--many", type=int, default=144, help="the more questions of (c)")
    parser.add_argument("--common", type=int, default=8, help="questions of (b)")
    parser.add_argument("--per_database", type=int, default=16, help="questions of each database")
    parser.add_argument("--rounds", type=int, default=1, help="repetitions of (a)")
    parser.add_argument("--max_depth", type=int, default=3, help="levels of a tree")
    parser.add_argument("--max_tokens", type=int, default=256, help="longest reply, in tokens")
    return GrowthBench(**vars(parser.parse_args(words)))


async def measure(asked: GrowthBench) -> None:
    model = check_model_folder(asked.model)
    flags = ("data", "db_root", "model", "max_depth", "max_tokens")
    words = [word for name in flags for word in (f"--{name}", str(getattr(asked, name)))]
    run = run_settings(parse_run_arguments(words))
    with Executor(1) as executor:
        work = WorkList(choose(load_questions(asked.data), asked.many, asked.per_database), asked.data, asked.db_root)
        for db_id in {question.db_id for question in work.questions}:
            check_database(database_path(asked.db_root, db_id))
        work.fingerprints = database_fingerprints(asked.db_root, work.databases())
        await check_gold(work, executor)
        if len(work.questions) < asked.questions:
            raise InputError(f"{asked.data}: --questions {asked.questions}, but there are {len(work.questions)}")
        tokenizer = load_tokenizer(model)
        lengths = prepare_prompts(work, partial(encode, tokenizer))
        work.report("every prompt is too long")
        longest = max(lengths.values())
        few = replace(work, questions=work.questions[: asked.questions])
        common = replace(work, questions=work.questions[: asked.common])
        engine = EngineSettings(longest + asked.max_depth * ROOM_PER_LEVEL + asked.max_tokens)
        generator = Generator(model, tokenizer, run.sampling, engine)
        try:
            await report(asked.rounds, run, generator, executor, work, few, common)
        finally:
            generator.close()


async def report(
    rounds: int,
    run: RunSettings,
    generator: Generator,
    executor: Executor,
    work: WorkList,
    few: WorkList,
    common: WorkList,
) -> None:
    # --- (a) against the limit ---
    ratios = []
    for number in range(rounds):
        await empty_cache(generator)
        recorder = Recorder(generator)
        figures, _, trees = await pipeline(few, run, recorder, executor)
        seconds, replies = await replay(generator, recorder.requests)
        per_token = figures["seconds"] / tokens_of(recorder.replies), seconds / tokens_of(replies)
        ratios.append(per_token[1] / per_token[0])
        same = sum(one == other for one, other in zip(recorder.replies, replies, strict=True))
        print(
            f"round {number + 1}: pipeline {figures['seconds']:.1f} s, {tokens_of(recorder.replies)} tokens, "
            f"{figures['nodes']} nodes; replay {seconds:.1f} s, {tokens_of(replies)} tokens; "
            f"{same} of {len(replies)} requests with the same replies",
            flush=True,
        )

    # --- (b) against the common way ---
    rate = figures["nodes"] / figures["seconds"]
    speedups = []
    for name, way in (("common way", WithoutPrefixCache(generator)), ("with vLLM's prefix cache", generator)):
        seconds, nodes = await common_way(common, run, way)
        speedups.append(rate / (nodes / seconds))
        print(
            f"{name}: {len(common.questions)} questions, {nodes} nodes, {seconds:.1f} s; the pipeline writes "
            f"{speedups[-1]:.1f} times as many nodes per second",
            flush=True,
        )

    # --- (c) with more questions ---
    await empty_cache(generator)
    many, log, many_trees = await pipeline(work, run, generator, executor)
    rates = len(few.questions) / figures["seconds"], len(work.questions) / many["seconds"]
    print(f"questions per second: {rates[0]:.3f} with {len(few.questions)}, {rates[1]:.3f} with {len(work.questions)}")
    print(f"seconds per 1,000 output tokens: {json.dumps([round(1000 * value, 2) for value in per_token])}")
    again = {tree["question_id"]: tree for tree in many_trees}
    equal = sum(again[tree["question_id"]] == tree for tree in trees)
    print(f"trees that are the same among {len(few.questions)} and among {len(work.questions)} questions: {equal}")

    print(f"PROMISE growth_of_the_limit {median(ratios):.2f} GOAL >= 0.90")
    print(f"PROMISE growth_common_way_speedup {speedups[0]:.1f} GOAL >= 4")
    print(f"PROMISE growth_linear_percent {100 * abs(rates[1] / rates[0] - 1):.1f} GOAL <= 15")
    print(f"PROMISE growth_memory_mb {log.growth():.1f} GOAL <= 10")


def main(words: list[str] | None = None) -> None:
    asyncio.run(measure(parse_arguments(words)))


if __name__ == "__main__":
    run_script(main)
