"""Grow one revision tree as a coroutine over two awaited services: a sampler and an executor of SQL.

How it works. Replies come when they come, but the tree must depend on what they say alone. So two things are apart:

- `_Requests` speculates. As soon as a query is judged wrong its revisions are requested, whatever its cousins are still
  waiting for, so that the engine and the executor are never kept waiting by the slowest reply of a level.
- `_number_nodes` decides. It takes the answers level by level, gives the nodes their numbers d and j, and only there is
  it certain which of them are revised: a query that an earlier cousin has written too is not, nor is one for which
  better ones leave no room under `max_nodes`, nor any after `stop_after`. What was requested for those is cancelled,
  with all below it; what speculation held back and is needed after all is requested now.

A request's seed, and which queries it draws again, hang on its position in the tree and the answers above it, never on
what is in flight; so a request that was made early and one that was made late give the same.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from tree import prompts
from tree.prompts import Attempt, Message
from tree.replies import Reply, extract_sql
from tree.sql.canonical import canonical_sql, query_distance
from tree.sql.results import Verdict
from tree.tree_node import INITIAL, Question, RevisionTree, TreeNode

Sample = Callable[[Sequence[Message], int, int, bool], Awaitable[list[Reply]]]
Judge = Callable[[Sequence[str]], Awaitable[list[Verdict]]]
Fits = Callable[[Sequence[Message]], bool]
Position = tuple[int, ...]  # in the tree: which first attempt, which of its revisions, …; () is the initial prompt


@dataclass(frozen=True)
class TreeSettings:
    """How a tree grows: `num_roots` first attempts, `sample_num` revisions of each wrong query, `max_depth` levels.

    No revisions are asked for that would take the tree over `max_nodes`, or once it has `stop_after` correct nodes
    (0 = no such bound). A query that repeats a wrong one of its request or above it is drawn again, `redraws`
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

    def most_nodes(self, levels: int) -> int:
        """Queries in so many levels when every one is wrong and new, whatever `max_nodes` says."""
        return sum(self.num_roots * self.sample_num**depth for depth in range(levels))

    def allows_revision(self, nodes: int, correct: int) -> bool:
        """Whether one more query may be revised in a tree of so many nodes, so many of them correct."""
        within = not self.max_nodes or nodes + self.sample_num <= self.max_nodes
        return within and not (self.stop_after and correct >= self.stop_after)


@dataclass(frozen=True)
class Request:
    """A request for queries: its position, the attempts from the root to it, and what is known to be wrong there.

    `wrong` holds the canonical forms of these attempts and of their wrong siblings.
    """

    position: Position = ()
    attempts: tuple[Attempt, ...] = ()
    wrong: frozenset[str] = frozenset()


@dataclass(frozen=True)
class JudgedQuery:
    """A judged query; `tokens` were generated for it, those of draws that were thrown away among them; `logprob` is
    that of the reply that holds it. `revision` asks for its revisions: None when it gets none."""

    sql: str
    tokens: int
    logprob: float | None
    verdict: Verdict
    feedback: str
    revision: Request | None = None


def node_seed(run_seed: int, question_id: int, position: Position, draw: int = 0) -> int:
    """Seed of a request: 31 bits that depend on its position and nothing else: order and sharding change nothing."""
    digest = hashlib.sha256(f"{run_seed}/{question_id}/{position}/{draw}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def feedback_text(verdict: Verdict, mode: str) -> str:
    """The feedback on a query; with mode "oracle" the expected rows too."""
    own = prompts.execution_feedback(verdict.execution)
    if mode == "own" or verdict.ex or not verdict.gold.columns:  # a lost worker leaves nothing of gold to show
        return own
    return prompts.oracle_feedback(own, verdict.gold)


async def grow(
    question: Question,
    task: str,
    settings: TreeSettings,
    sample: Sample,
    judge: Judge,
    fits: Fits = lambda messages: True,
) -> RevisionTree:
    """The revision tree of one question.

    `task` is the initial prompt, `sample(messages, n, seed, revises)` draws replies (`revises`: to a request for
    revisions), `judge(queries)` runs them and compares them with gold, `fits(messages)` says whether a chat leaves room
    for a reply (else the node is not revised).
    """
    requests = _Requests(question, task, settings, sample, judge, fits)
    tree = RevisionTree(question, task, settings.feedback, settings.revision)
    try:
        await _number_nodes(tree, requests, settings)
    finally:
        requests.cancel(())
    return tree


# --- speculation ------------------------------------------------------------------------------------------------------


class _Requests:
    """The requests of a tree in flight, by position; each asks for revisions of its wrong queries by itself."""

    def __init__(self, question: Question, task: str, settings: TreeSettings, sample: Sample, judge: Judge, fits: Fits):
        self._question, self._task, self._settings = question, task, settings
        self._sample, self._judge, self._fits = sample, judge, fits
        self._running: dict[Position, asyncio.Task[list[JudgedQuery]]] = {}

    def start(self, request: Request) -> None:
        """Ask for the queries of a request, unless that was done."""
        if request.position not in self._running:
            task = self._running[request.position] = asyncio.create_task(self._answer(request))
            # a failure counts when it is waited for; nobody waits for requests that are cancelled
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def answer(self, request: Request) -> list[JudgedQuery]:
        """The queries of a request that was started. Raises what the services raise."""
        return await self._running[request.position]

    def cancel(self, position: Position) -> None:
        """Throw away what was asked for at a position and below."""
        for below in [running for running in self._running if running[: len(position)] == position]:
            self._running.pop(below).cancel()

    async def _answer(self, request: Request) -> list[JudgedQuery]:
        queries = self._with_revisions(request, await self._draw(request))
        correct = sum(query.verdict.ex for query in queries)
        is_scarce = 0 < self._settings.max_nodes < self._settings.most_nodes(len(request.position) + 2)
        for query in queries:
            if is_scarce and query.verdict.execution.outcome != "ok":
                continue  # its place may be needed for a better one
            asked_for = self._settings.num_roots + self._settings.sample_num * (len(self._running) - 1)
            if query.revision and self._settings.allows_revision(asked_for, correct):
                self.start(query.revision)
        return queries

    async def _draw(self, request: Request) -> list[JudgedQuery]:
        """Judged queries; one that repeats what is known to be wrong is drawn again, and its tokens are added up."""
        settings = self._settings
        messages = prompts.revision_chat(settings.revision, self._task, request.attempts)
        missing = list(range(settings.sample_num if request.position else settings.num_roots))
        found: dict[int, JudgedQuery] = {}
        wrong = set(request.wrong)
        for draw in range(1 + settings.redraws):
            seed = node_seed(settings.seed, self._question.question_id, request.position, draw)
            replies = await self._sample(messages, len(missing), seed, bool(request.attempts))
            drawn = await self._judged(replies)
            repeated = []
            for slot, query in zip(missing, drawn, strict=True):
                spent = found[slot].tokens if slot in found else 0
                found[slot] = replace(query, tokens=spent + query.tokens)
                if query.verdict.ex:
                    continue
                if canonical_sql(query.sql) in wrong:
                    repeated.append(slot)
                wrong.add(canonical_sql(query.sql))
            missing = repeated
            if not missing:
                break
        return [found[slot] for slot in sorted(found)]

    async def _judged(self, replies: Sequence[Reply]) -> list[JudgedQuery]:
        written = [extract_sql(reply.text) for reply in replies]
        # shielded, because cancelling a task that runs in a worker would cost the worker
        verdicts = await asyncio.shield(self._judge(written))
        return [
            JudgedQuery(sql, reply.tokens, reply.logprob, verdict, feedback_text(verdict, self._settings.feedback))
            for reply, sql, verdict in zip(replies, written, verdicts, strict=True)
        ]

    def _with_revisions(self, request: Request, queries: list[JudgedQuery]) -> list[JudgedQuery]:
        """Each query with the request that revises it, but for one that is right, repeated, too deep or too long."""
        keys = [canonical_sql(query.sql) for query in queries]
        wrong = request.wrong.union(canonical_sql(query.sql) for query in queries if not query.verdict.ex)
        found = []
        for number, query in enumerate(queries):
            is_new = keys[number] not in request.wrong and keys[number] not in keys[:number]
            may_be_revised = is_new and not query.verdict.ex and len(request.position) + 1 < self._settings.max_depth
            attempts = (*request.attempts, Attempt(query.sql, query.feedback))
            if may_be_revised and self._fits(prompts.revision_chat(self._settings.revision, self._task, attempts)):
                query = replace(query, revision=Request((*request.position, number), attempts, wrong))
            found.append(query)
        return found


# --- numbering --------------------------------------------------------------------------------------------------------


async def _number_nodes(tree: RevisionTree, requests: _Requests, settings: TreeSettings) -> None:
    """Fill the tree level by level, and decide which nodes of a level are revised: those that are worth most."""
    first = Request()
    requests.start(first)
    level = [(INITIAL, first)]
    planned = settings.num_roots  # nodes of the tree when all that is waited for has come
    writers: dict[str, str] = {}  # canonical query -> the node that wrote it first
    while level:
        revisable: list[tuple[TreeNode, Request]] = []
        for parent_id, request in level:
            queries = await requests.answer(request)
            for number, query in enumerate(queries):
                node = _add_node(tree, parent_id, query, writers)
                if query.revision and not node.duplicate_of:
                    revisable.append((node, query.revision))
                else:
                    requests.cancel((*request.position, number))
        right = [node.generated_sql for node in tree.nodes.values() if node.is_correct]
        level = []
        for node, revision in sorted(revisable, key=lambda item: worth(item[0], right)):
            if settings.allows_revision(planned, len(right)):
                planned += settings.sample_num
                node.input_seq = prompts.revision_text(settings.revision, revision.attempts)
                requests.start(revision)
                level.append((node.node_id, revision))
            else:
                requests.cancel(revision.position)


def worth(node: TreeNode, right: Sequence[str]) -> tuple[int, float]:
    """What a wrong query is sorted by, those that are worth most first: what is near it makes the hardest pairs.

    A query that returns rows comes before one that returns none, and that before one that fails, which execution alone
    tells from a right one; among them the one that is nearer to a query known to be `right`.
    """
    distance = min((query_distance(node.generated_sql, sql) for sql in right), default=0.0)
    return {"ok": 0, "empty": 1}.get(node.outcome, 2), distance


def _add_node(tree: RevisionTree, parent_id: str, query: JudgedQuery, writers: dict[str, str]) -> TreeNode:
    key, verdict = canonical_sql(query.sql), query.verdict
    node = tree.add(
        parent_id,
        generated_sql=query.sql,
        execution_feedback=query.feedback,
        outcome=verdict.execution.outcome,
        is_correct=verdict.ex,
        strict_match=verdict.strict,
        flags=list(verdict.execution.flags),
        tokens=query.tokens,
        logprob=query.logprob,
        duplicate_of=writers.get(key),
    )
    writers.setdefault(key, node.node_id)
    return node
