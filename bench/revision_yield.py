"""Which way of asking for revisions is best for a model: what each gives for the same wrong queries.

    python -m bench.revision_yield --model Qwen2.5-Coder-0.5B-Instruct         # the bundled demo, or BIRD in data/train
    python -m bench.revision_yield --model Qwen2.5-Coder-0.5B-Instruct --data spider/train.json bird/train.json \\
        --db_root spider/train_databases bird/train_databases --per_database 5 --nodes 110
    python -m bench.revision_yield --model Qwen2.5-Coder-0.5B-Instruct --reviser qwen-reviser-sql --data held_out.json

Wrong, different first attempts are collected, as many that fail, that return rows and that return none as there are;
then every way asks for the same number of revisions of each of them, and so does the task alone (independent samples).
Every request has the same temperature, so that only the prompt differs. Printed are, with 95 % intervals over
questions, the share of right revisions, the right ones per 1,000 generated tokens, copies of the wrong query, and those
that are changed and closer: right, or by canonical tokens nearer to a right query (gold, or a first attempt).

With --reviser, an adapter of `python -m tree.train_reviser`, it is asked in the way that it was trained for, and
compared with the generator as it is, asked in the same way, with that one's independent samples, and with its own. One
that was trained on questions or databases among those measured is refused.
"""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.tree_growth import choose
from common.files import InputError, run_script
from common.model_folder import check_model_folder
from common.preference import user_prompt
from common.tables import aligned
from common.trained_on import check_overlap
from eval.intervals import DIFFERENCE, Clusters, Estimate
from tree import prompts
from tree.generator import ROOM_PER_LEVEL, EngineSettings, Generator, Reviser, Sampling, encode, load_tokenizer
from tree.questions import load_questions
from tree.replies import extract_sql
from tree.run.preflight import check_gold, prepare_prompts
from tree.run.reviser import read_reviser
from tree.run.settings import parse_arguments as parse_run_arguments
from tree.run.work_list import WorkList
from tree.sql.canonical import canonical_sql, query_distance
from tree.sql_utils import Executor, check_database, database_path
from tree.tree_builder import feedback_text, node_seed
from tree.tree_node import Question

FIRST, REVISIONS = 4, 2  # samples
KINDS = {"error": "fail", "ok": "return rows", "empty": "return none"}  # of wrong first attempts, by outcome
SAMPLES = "samples"  # independent ones, of the generator
REVISER, ITS_SAMPLES = "reviser", "reviser's samples"
HEAD = ("", "right", "minus samples", "per 1,000 tokens", "of samples", "tokens", "copies", "changed and closer")


@dataclass(frozen=True)
class Wrong:
    """A wrong first attempt: where it comes from, its task, what running it said, how far it is from a right query."""

    path: Path
    question: Question
    task: str
    attempt: prompts.Attempt
    outcome: str
    right: tuple[str, ...]
    distance: float


@dataclass(frozen=True)
class Way:
    """A way of asking: for revisions, as `revision` says, or with the task alone (""); the generator or the reviser."""

    name: str
    revision: str = ""
    of_reviser: bool = False

    def messages(self, node: Wrong) -> list[prompts.Message]:
        return prompts.revision_chat(self.revision, node.task, [node.attempt] if self.revision else [])


def ways_to_compare(revisions: Sequence[str], reviser: Reviser | None) -> list[Way]:
    """The generator's independent samples first."""
    if reviser is None:
        return [Way(SAMPLES), *(Way(revision, revision) for revision in revisions)]
    asked = reviser.revision
    return [Way(SAMPLES), Way(asked, asked), Way(ITS_SAMPLES, of_reviser=True), Way(REVISER, asked, of_reviser=True)]


@dataclass(frozen=True)
class Revised:
    """What the revisions of one wrong query are, in counts: REVISIONS in all."""

    right: int
    tokens: int
    copies: int
    closer: int


def to_nearest(sql: str, right: Sequence[str]) -> float:
    return min(query_distance(sql, other) for other in right)


async def first_attempts(work: WorkList, generator: Generator, executor: Executor) -> list[Wrong]:
    """The wrong and different ones among the first attempts at every question."""

    async def of(question: Question) -> list[Wrong]:
        path, task = work.database(question.db_id), work.prompt(question)
        seed = node_seed(0, question.question_id, ())
        queries = [extract_sql(reply.text) for reply in await generator.sample(prompts.chat(task), FIRST, seed)]
        verdicts = await executor.judge_all(path, queries, question.sql)
        judged = {canonical_sql(sql): (sql, verdict) for sql, verdict in zip(queries, verdicts, strict=True)}
        right = (question.sql, *(sql for sql, verdict in judged.values() if verdict.ex))
        return [
            Wrong(
                path=path,
                question=question,
                task=task,
                attempt=prompts.Attempt(sql, feedback_text(verdict, "own")),
                outcome=verdict.execution.outcome,
                right=right,
                distance=to_nearest(sql, right),
            )
            for sql, verdict in judged.values()
            if not verdict.ex and verdict.execution.outcome in KINDS
        ]

    from tqdm.asyncio import tqdm

    groups = await tqdm.gather(*map(of, work.questions), desc="first attempts", unit="question")
    return [node for group in groups for node in group]


def evenly(nodes: Sequence[Wrong], count: int) -> list[Wrong]:
    """`count` of the nodes, of each kind as many as there are, up to the same number."""
    waiting = {outcome: [node for node in nodes if node.outcome == outcome] for outcome in KINDS}
    chosen: list[Wrong] = []
    while len(chosen) < count and any(waiting.values()):
        chosen += [group.pop(0) for group in waiting.values() if group]
    return chosen[:count]


async def revise(node: Wrong, way: Way, draw: int, generator, executor) -> Revised:
    """REVISIONS replies to a request, judged."""
    seed = node_seed(draw, node.question.question_id, (node.attempt.sql,))
    replies = await generator.sample(way.messages(node), REVISIONS, seed, way.of_reviser)
    queries = [extract_sql(reply.text) for reply in replies]
    verdicts = await executor.judge_all(node.path, queries, node.question.sql)
    copies = [canonical_sql(sql) == canonical_sql(node.attempt.sql) for sql in queries]
    nearer = [to_nearest(sql, node.right) < node.distance for sql in queries]
    return Revised(
        right=sum(verdict.ex for verdict in verdicts),
        tokens=sum(reply.tokens for reply in replies),
        copies=sum(copies),
        closer=sum(verdict.ex or near for verdict, near in zip(verdicts, nearer, strict=True)),
    )


# --- the table --------------------------------------------------------------------------------------------------------


def interval(estimate: Estimate, show: Callable[[float], str]) -> str:
    """`12 % [9, 15]`; "-" where there are too few questions for an interval."""
    if estimate.low is None:
        return f"{show(estimate.value)} [-]"
    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def ratio(number: float) -> str:
    return f"{number:.2f}"


def clusters_of(nodes: Sequence[Wrong]) -> Clusters:
    return Clusters([(node.path, node.question.question_id) for node in nodes])


def gain(nodes: Sequence[Wrong], way: Sequence[Revised], other: Sequence[Revised]) -> Estimate:
    """The share of right revisions minus that of another way."""
    gains = [(one.right - two.right) / REVISIONS for one, two in zip(way, other, strict=True)]
    return clusters_of(nodes).mean(gains, within=DIFFERENCE)


def per_token_ratio(nodes: Sequence[Wrong], way: Sequence[Revised], other: Sequence[Revised]) -> Estimate:
    """Right revisions per token, as a multiple of another way's."""

    def of(weights) -> float:
        sums = [
            sum(weight * value for weight, value in zip(weights, values, strict=True))
            for values in (
                [one.right for one in way],
                [one.tokens for one in way],
                [one.right for one in other],
                [one.tokens for one in other],
            )
        ]
        return (sums[0] / sums[1]) / (max(sums[2], 1) / sums[3])

    return clusters_of(nodes).statistic(of, within=None)


def row(name: str, nodes: Sequence[Wrong], way: Sequence[Revised], samples: Sequence[Revised]) -> list[str]:
    """The cells of a way of asking for some nodes; shares in percent of the revisions."""
    clusters = clusters_of(nodes)
    tokens, draws = sum(one.tokens for one in way), REVISIONS * len(nodes)
    return [
        name,
        interval(clusters.mean([one.right / REVISIONS for one in way]), percent),
        "" if name == SAMPLES else interval(gain(nodes, way, samples), percent),
        f"{1000 * sum(one.right for one in way) / tokens:.2f}",
        "" if name == SAMPLES else interval(per_token_ratio(nodes, way, samples), ratio),
        f"{tokens / draws:.0f}",
        percent(sum(one.copies for one in way) / draws),
        percent(sum(one.closer for one in way) / draws),
    ]


def tables(nodes: Sequence[Wrong], found: dict[str, list[Revised]]) -> list[str]:
    """Lines: one table for all nodes, one for each kind."""
    lines = []
    groups = {"all": tuple(KINDS)} | {said: (outcome,) for outcome, said in KINDS.items()}
    for kind, outcomes in groups.items():
        places = [place for place, node in enumerate(nodes) if node.outcome in outcomes]
        if places:
            of = {way: [revised[place] for place in places] for way, revised in found.items()}
            some = [nodes[place] for place in places]
            rows = [row(way, some, revised, of[SAMPLES]) for way, revised in of.items()]
            lines += ["", f"{len(places)} wrong queries ({kind}), % of {REVISIONS} revisions each"]
            lines += aligned([list(HEAD), *rows])
    return lines


def best_way_lines(model: str, nodes: Sequence[Wrong], found: dict[str, list[Revised]]) -> list[str]:
    """Lines: which of the ways of asking gives most for its tokens."""
    ratios = {
        way: per_token_ratio(nodes, revised, found[SAMPLES]).value for way, revised in found.items() if way != SAMPLES
    }
    best = max(ratios, key=ratios.get)
    return [
        f"best for {model}: REVISION={best}, that is --revision {best} ({ratios[best]:.2f} of samples)",
        f"PROMISE revision_yield_of_samples {ratios[best]:.2f} GOAL >= 1.0",
    ]


def reviser_lines(nodes: Sequence[Wrong], found: dict[str, list[Revised]], revision: str) -> list[str]:
    """Lines: the reviser beside each of the other ways, for the same wrong queries."""
    rows, ratios = [["the reviser's revisions", "right, minus theirs", "per 1,000 tokens, of theirs"]], {}
    for way in (revision, SAMPLES, ITS_SAMPLES):
        gained = gain(nodes, found[REVISER], found[way])
        ratios[way] = per_token_ratio(nodes, found[REVISER], found[way])
        rows.append([f"beside {way}", interval(gained, percent), interval(ratios[way], ratio)])
    return [
        *aligned(rows),
        f"PROMISE reviser_yield_of_generator {ratios[revision].value:.2f} GOAL >= 2",
        f"PROMISE reviser_yield_of_samples {ratios[SAMPLES].value:.2f} GOAL >= 1.0",
    ]


# --- the measurement --------------------------------------------------------------------------------------------------


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = "data/train" if Path("data/train/train.json").is_file() else "data/demo"
    parser.add_argument("--model", default="Qwen2.5-Coder-0.5B-Instruct", help="folder of the generator")
    parser.add_argument("--data", nargs="+", default=[f"{home}/train.json"], help="question files with ids")
    parser.add_argument("--db_root", nargs="+", default=[f"{home}/train_databases"], help="their database folders")
    parser.add_argument("--questions", type=int, default=100, help="questions of each file")
    parser.add_argument("--per_database", type=int, default=8, help="questions of each database")
    parser.add_argument("--nodes", type=int, default=200, help="wrong first attempts of each file to revise")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--revisions", nargs="+", default=prompts.REVISIONS, help="ways of asking to compare")
    ways.add_argument("--reviser", default="", help='folder of a reviser to compare with the generator ("" = none)')
    overlap = "measure on databases or questions that the reviser was trained on"
    parser.add_argument("--allow_overlap", action="store_true", help=overlap)
    parser.add_argument("--max_tokens", type=int, default=300, help="longest reply, in tokens")
    parser.add_argument("--temperature", type=float, default=0.8, help="sampling temperature")
    return parser.parse_args(words)


async def prepared(data: str, db_root: str, args: argparse.Namespace, tokenizer, executor) -> tuple[WorkList, int]:
    """The questions of a file, ready to be asked, and the length of the longest prompt."""
    work = WorkList(choose(load_questions(data), args.questions, args.per_database), data, db_root)
    for db_id in work.databases():
        check_database(database_path(db_root, db_id))
    await check_gold(work, executor)
    lengths = prepare_prompts(work, partial(encode, tokenizer))
    work.report("every prompt is too long")
    if args.reviser and not args.allow_overlap:
        asked = {user_prompt(work.prompt(question)) for question in work.questions}
        check_overlap(args.reviser, data, work.databases(), asked)
    return work, max(lengths.values())


async def measure(args: argparse.Namespace) -> None:
    if len(args.data) != len(args.db_root):
        raise InputError("--data and --db_root: give as many folders as files")
    if unknown := sorted(set(args.revisions) - set(prompts.REVISIONS)):
        raise InputError(f"--revisions: {unknown[0]} is not one of {', '.join(prompts.REVISIONS)}")
    from tqdm.asyncio import tqdm

    model = check_model_folder(args.model)
    reviser = read_reviser(args.reviser, model)
    tokenizer = load_tokenizer(model)
    with Executor(1, timeout=5) as executor:
        files = [
            await prepared(data, db_root, args, tokenizer, executor)
            for data, db_root in zip(args.data, args.db_root, strict=True)
        ]
        context = max(longest for _, longest in files) + ROOM_PER_LEVEL + 2 * args.max_tokens
        engine = EngineSettings(context, reviser=reviser)
        usual = parse_run_arguments([])
        sampling = Sampling(args.temperature, usual.top_p, usual.top_k, args.max_tokens)
        generator = Generator(model, tokenizer, sampling, engine)
        try:
            nodes = []
            for work, _ in files:
                nodes += evenly(await first_attempts(work, generator, executor), args.nodes)
            if not nodes:
                raise InputError("no first attempt is wrong; give other questions")
            found = {}
            for draw, way in enumerate(ways_to_compare(args.revisions, reviser), start=1):
                requests = [revise(node, way, draw, generator, executor) for node in nodes]
                found[way.name] = await tqdm.gather(*requests, desc=way.name, unit="query")
        finally:
            generator.close()
    print("\n".join(tables(nodes, found)))
    lines = reviser_lines(nodes, found, reviser.revision) if reviser else best_way_lines(args.model, nodes, found)
    print("\n".join(["", *lines]))


def main(words: list[str] | None = None) -> None:
    asyncio.run(measure(parse_arguments(words)))


if __name__ == "__main__":
    run_script(main)
