"""Grow one revision tree as a coroutine over two awaited services: a sampler and an executor of SQL."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tree import prompts
from tree.prompts import Attempt, Message
from tree.sql.canonical import canonical_sql
from tree.sql.results import Verdict
from tree.tree_node import INITIAL, Question, RevisionTree, TreeNode

Sample = Callable[[Sequence[Message], int, int], Awaitable[list[prompts.Reply]]]
Judge = Callable[[Sequence[str]], Awaitable[list[Verdict]]]
Fits = Callable[[Sequence[Message]], bool]
Path = tuple[int, ...]  # the place of a node: which first attempt, which of its revisions, …; () is the initial prompt


@dataclass(frozen=True)
class Growth:
    """How a tree grows: `num_roots` first attempts, `sample_num` revisions of each wrong query, `max_depth` levels.

    No revisions are asked for that would take the tree over `max_nodes`, or once it has `stop_after` correct nodes
    (0 = no such bound). A query that repeats a wrong one of its request or on its way is drawn again, `redraws`
    times at most. `revision` is one of `prompts.REVISIONS`, `feedback` "own" or "oracle".
    """

    max_depth: int
    num_roots: int
    sample_num: int
    max_nodes: int = 0
    stop_after: int = 0
    redraws: int = 0
    revision: str = prompts.REVISIONS[0]
    feedback: str = "own"
    seed: int = 0


@dataclass(frozen=True)
class Place:
    """A place in the tree where queries are asked for: the attempts on the way there, and what is wrong there.

    `wrong` holds the canonical forms of these attempts and of their wrong siblings.
    """

    path: Path = ()
    attempts: tuple[Attempt, ...] = ()
    wrong: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Answer:
    """A query as it came back: what it took to write, and what running it said."""

    sql: str
    tokens: int
    verdict: Verdict
    feedback: str


def node_seed(run_seed: int, question_id: int, path: Path, draw: int = 0) -> int:
    """Seed of a request: 31 bits that depend on its place and nothing else, so order and sharding change nothing."""
    digest = hashlib.sha256(f"{run_seed}/{question_id}/{path}/{draw}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def feedback_text(verdict: Verdict, mode: str) -> str:
    """The feedback on a query; with mode "oracle" the expected rows too."""
    run, gold = verdict.execution, verdict.gold
    own = prompts.execution_feedback(
        run.outcome, run.error, run.nearest, run.columns, run.rows, run.row_count, run.more
    )
    if mode == "own" or verdict.ex or not gold.columns:  # a lost worker leaves nothing of gold to show
        return own
    return prompts.oracle_feedback(own, gold.columns, gold.rows, gold.row_count)


async def grow(
    question: Question, task: str, growth: Growth, sample: Sample, judge: Judge, fits: Fits = lambda messages: True
) -> RevisionTree:
    """The revision tree of one question.

    `task` is the initial prompt, `sample(messages, n, seed)` draws replies, `judge(queries)` runs them and compares
    them with gold, `fits(messages)` says whether a chat leaves room for a reply (else the node is not revised).

    Revisions are asked for the moment their parent's verdict is known. Nodes get their numbers breadth first,
    whatever the order in which the services answer, and only then is it certain which of them are revised: a query
    that an earlier cousin has written too is not, and what was asked for it is thrown away. So the tree depends on
    the services' answers alone.
    """
    growing = _Growing(question, task, growth, sample, judge, fits)
    try:
        return await growing.run()
    finally:
        growing.abandon(())


class _Growing:
    def __init__(self, question: Question, task: str, growth: Growth, sample: Sample, judge: Judge, fits: Fits):
        self.question, self.task, self.growth = question, task, growth
        self.sample, self.judge, self.fits = sample, judge, fits
        self.tree = RevisionTree(question, task, growth.feedback, growth.revision)
        self.first_of: dict[str, str] = {}  # canonical query -> the node that wrote it first
        self.asked: dict[Path, asyncio.Task[list[tuple[Answer, Place | None]]]] = {}

    async def run(self) -> RevisionTree:
        root = Place()
        self.ask(root)
        waiting: deque[tuple[str, Place]] = deque([(INITIAL, root)])
        planned = self.growth.num_roots
        while waiting:
            parent_id, place = waiting.popleft()
            answers = await self.asked[place.path]
            nodes = [self.commit(parent_id, answer) for answer, _ in answers]
            correct = sum(node.is_correct for node in self.tree.nodes.values())
            for number, (node, (_, child)) in enumerate(zip(nodes, answers, strict=True)):
                if child and not node.duplicate_of and self.affordable(planned, correct):
                    planned += self.growth.sample_num
                    node.input_seq = prompts.revision_text(self.growth.revision, child.attempts)
                    self.ask(child)
                    waiting.append((node.node_id, child))
                else:
                    self.abandon((*place.path, number))
        return self.tree

    def ask(self, place: Place) -> None:
        if place.path not in self.asked:
            task = self.asked[place.path] = asyncio.create_task(self.attempt(place))
            # a failure counts when it is waited for; nobody waits for those that are thrown away
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def abandon(self, path: Path) -> None:
        """Throw away what was asked for at a place and below."""
        for asked in [asked for asked in self.asked if asked[: len(path)] == path]:
            self.asked.pop(asked).cancel()

    def affordable(self, planned: int, correct: int) -> bool:
        growth = self.growth
        within = not growth.max_nodes or planned + growth.sample_num <= growth.max_nodes
        return within and not (growth.stop_after and correct >= growth.stop_after)

    async def attempt(self, place: Place) -> list[tuple[Answer, Place | None]]:
        """Ask for queries at a place, judge them, and at once ask for revisions; each answer with its next place."""
        answers = await self.draw(place)
        children = self.children(place, answers)
        correct = sum(answer.verdict.ex for answer in answers)
        for child in children:
            if child and self.affordable(self.nodes_asked_for(), correct):
                self.ask(child)
        return list(zip(answers, children, strict=True))

    def nodes_asked_for(self) -> int:
        return self.growth.num_roots + self.growth.sample_num * (len(self.asked) - 1)

    async def draw(self, place: Place) -> list[Answer]:
        """Judged queries at a place; one that repeats what is known to be wrong there is drawn again."""
        messages = prompts.revision_chat(self.growth.revision, self.task, place.attempts)
        count = self.growth.sample_num if place.path else self.growth.num_roots
        answers: dict[int, Answer] = {}
        wrong, missing = set(place.wrong), list(range(count))
        for draw in range(1 + self.growth.redraws):
            seed = node_seed(self.growth.seed, self.question.question_id, place.path, draw)
            replies = await self.sample(messages, len(missing), seed)
            queries = [prompts.extract_sql(reply.text) for reply in replies]
            # shielded, because cancelling a task that runs in a worker would cost the worker
            verdicts = await asyncio.shield(self.judge(queries))
            repeated = []
            for slot, reply, sql, verdict in zip(missing, replies, queries, verdicts, strict=True):
                before = answers[slot].tokens if slot in answers else 0
                feedback = feedback_text(verdict, self.growth.feedback)
                answers[slot] = Answer(sql, before + reply.tokens, verdict, feedback)
                if not verdict.ex and canonical_sql(sql) in wrong:
                    repeated.append(slot)
                elif not verdict.ex:
                    wrong.add(canonical_sql(sql))
            missing = repeated
            if not missing:
                break
        return [answers[slot] for slot in range(count)]

    def children(self, place: Place, answers: list[Answer]) -> list[Place | None]:
        """Where each answer would be revised; None for one that is right, a repetition, too deep or too long."""
        wrong = place.wrong.union(canonical_sql(answer.sql) for answer in answers if not answer.verdict.ex)
        known, found = set(place.wrong), []
        for number, answer in enumerate(answers):
            key = canonical_sql(answer.sql)
            attempt = Attempt(answer.sql, answer.feedback)
            child = Place((*place.path, number), (*place.attempts, attempt), wrong)
            wanted = not answer.verdict.ex and key not in known and len(child.path) < self.growth.max_depth
            fits = wanted and self.fits(prompts.revision_chat(self.growth.revision, self.task, child.attempts))
            found.append(child if fits else None)
            known.add(key)
        return found

    def commit(self, parent_id: str, answer: Answer) -> TreeNode:
        key, verdict = canonical_sql(answer.sql), answer.verdict
        node = self.tree.add(
            parent_id,
            generated_sql=answer.sql,
            execution_feedback=answer.feedback,
            outcome=verdict.execution.outcome,
            is_correct=verdict.ex,
            strict_match=verdict.strict,
            flags=list(verdict.execution.flags),
            tokens=answer.tokens,
            duplicate_of=self.first_of.get(key),
        )
        self.first_of.setdefault(key, node.node_id)
        return node
