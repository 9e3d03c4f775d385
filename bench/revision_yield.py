"""What each way of asking for revisions gives, compared with independent samples for the same wrong queries.

    python -m bench.revision_yield --model Qwen2.5-Coder-0.5B-Instruct         # the bundled demo, or BIRD in data/train
    python -m bench.revision_yield --model Qwen2.5-Coder-0.5B-Instruct --data spider/train.json bird/train.json \\
        --db_root spider/train_databases bird/train_databases --per_database 5 --nodes 220

Wrong, different first attempts are collected; then every way asks for the same number of revisions of each of them.
The figure is the number of correct revisions per 1,000 generated tokens, and its ratio to that of independent samples
(`again`, without drawing repeated queries again). Every request has the same temperature, so that only the prompt
differs.
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.tree_growth import choose
from common.files import InputError, run_script
from common.model_folder import check_model_folder
from tree import prompts
from tree.generator import ROOM_PER_LEVEL, EngineSettings, Generator, Sampling, encode, load_tokenizer
from tree.questions import load_questions
from tree.replies import extract_sql
from tree.run.preflight import check_gold, prepare_prompts
from tree.run.revision_gain import Tally
from tree.run.settings import parse_arguments as parse_run_arguments
from tree.run.work_list import WorkList
from tree.sql.canonical import canonical_sql
from tree.sql_utils import Executor, check_database, database_path
from tree.tree_builder import feedback_text, node_seed

FIRST, REVISIONS = 4, 2  # samples
DEFAULT = prompts.REVISIONS[0]


@dataclass(frozen=True)
class Wrong:
    """A wrong first attempt: where it comes from, its task, the query and what running it said."""

    path: Path
    gold: str
    question_id: int
    task: str
    attempt: prompts.Attempt


async def first_attempts(work: WorkList, generator: Generator, executor: Executor) -> list[Wrong]:
    """The wrong and different ones among the first attempts at every question."""

    async def of(question) -> list[Wrong]:
        path, task = work.database(question.db_id), work.prompt(question)
        seed = node_seed(0, question.question_id, ())
        queries = [extract_sql(reply.text) for reply in await generator.sample(prompts.chat(task), FIRST, seed)]
        verdicts = await executor.judge_all(path, queries, question.sql)
        wrong = {
            canonical_sql(sql): Wrong(
                path, question.sql, question.question_id, task, prompts.Attempt(sql, feedback_text(verdict, "own"))
            )
            for sql, verdict in zip(queries, verdicts, strict=True)
            if sql and not verdict.ex
        }
        return list(wrong.values())

    groups = await asyncio.gather(*map(of, work.questions))
    return [node for group in groups for node in group]


async def revise(revision: str, number: int, nodes: Sequence[Wrong], generator, executor) -> tuple[Tally, float]:
    """What a way of asking gives, and which share of its queries repeats the wrong one."""

    async def of(node: Wrong) -> tuple[Tally, int]:
        messages = prompts.revision_chat(revision, node.task, [node.attempt])
        seed = node_seed(number, node.question_id, (node.attempt.sql,))
        replies = await generator.sample(messages, REVISIONS, seed)
        queries = [extract_sql(reply.text) for reply in replies]
        verdicts = await executor.judge_all(node.path, queries, node.gold)
        copies = sum(canonical_sql(sql) == canonical_sql(node.attempt.sql) for sql in queries)
        right, tokens = sum(verdict.ex for verdict in verdicts), sum(reply.tokens for reply in replies)
        return Tally(len(queries), right, tokens), copies

    results = await asyncio.gather(*map(of, nodes))
    total = sum((found for found, _ in results), Tally())
    return total, sum(copies for _, copies in results) / total.queries


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = "data/train" if Path("data/train/train.json").is_file() else "data/demo"
    parser.add_argument("--model", default="Qwen2.5-Coder-0.5B-Instruct", help="folder of the generator")
    parser.add_argument("--data", nargs="+", default=[f"{home}/train.json"], help="question files with ids")
    parser.add_argument("--db_root", nargs="+", default=[f"{home}/train_databases"], help="their database folders")
    parser.add_argument("--questions", type=int, default=100, help="questions of each file")
    parser.add_argument("--per_database", type=int, default=8, help="questions of each database")
    parser.add_argument("--nodes", type=int, default=200, help="wrong first attempts of each file to revise")
    parser.add_argument("--revisions", nargs="+", default=prompts.REVISIONS, help="ways of asking to compare")
    parser.add_argument("--max_tokens", type=int, default=300, help="longest reply, in tokens")
    parser.add_argument("--temperature", type=float, default=0.8, help="sampling temperature")
    return parser.parse_args(words)


async def measure(args: argparse.Namespace) -> None:
    if len(args.data) != len(args.db_root):
        raise InputError("--data and --db_root: give as many folders as files")
    if unknown := sorted(set(args.revisions) - set(prompts.REVISIONS)):
        raise InputError(f"--revisions: {unknown[0]} is not one of {', '.join(prompts.REVISIONS)}")
    model = check_model_folder(args.model)
    tokenizer = load_tokenizer(model)
    with Executor(1, timeout=5) as executor:
        # --- questions ---
        works, lengths = [], []
        for data, db_root in zip(args.data, args.db_root, strict=True):
            work = WorkList(choose(load_questions(data), args.questions, args.per_database), data, db_root)
            for db_id in {question.db_id for question in work.questions}:
                check_database(database_path(db_root, db_id))
            await check_gold(work, executor)
            lengths.append(prepare_prompts(work, partial(encode, tokenizer)))
            work.report("every prompt is too long")
            works.append(work)
        longest = max(length for found in lengths for length in found.values())
        engine = EngineSettings(longest + ROOM_PER_LEVEL + 2 * args.max_tokens)
        usual = parse_run_arguments([])
        sampling = Sampling(args.temperature, usual.top_p, usual.top_k, args.max_tokens)
        generator = Generator(model, tokenizer, sampling, engine)
        try:
            # --- wrong first attempts ---
            nodes = []
            for work in works:
                nodes += (await first_attempts(work, generator, executor))[: args.nodes]
            if not nodes:
                raise InputError("no first attempt is wrong; give other questions")
            print(f"{len(nodes)} wrong first attempts, {REVISIONS} revisions each", flush=True)

            # --- every way of asking ---
            independent, _ = await revise(prompts.AGAIN, 1, nodes, generator, executor)
            print(f"samples    {independent}", flush=True)
            ratios = {}
            for revision in args.revisions:
                found, copied = await revise(revision, 2, nodes, generator, executor)
                ratios[revision] = (found.correct / found.tokens) / (max(independent.correct, 1) / independent.tokens)
                print(
                    f"{revision:10} {found}, {found.tokens / found.queries:.0f} tokens each, "
                    f"{copied:.0%} repeat the wrong query, {ratios[revision]:.2f} of independent samples",
                    flush=True,
                )
        finally:
            generator.close()
    if DEFAULT in ratios:
        print(f"PROMISE revision_yield_of_fresh {ratios[DEFAULT]:.2f} GOAL >= 1.0")


def main(words: list[str] | None = None) -> None:
    asyncio.run(measure(parse_arguments(words)))


if __name__ == "__main__":
    run_script(main)
