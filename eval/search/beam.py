"""Search for the answer to one question by reward, without gold (the idea of ReLoc, arXiv 2508.07434).

Drafts are executed and scored. Then, round by round, the best queries that were not revised yet (the beam) are revised
from what executing them said, and the revisions are executed and scored too, until a round brings nothing better than
the best before it, or nothing is left to be revised. What is left of the budget of queries is spent on further drafts.

`search` is a coroutine over two awaited services, one that draws replies and one that executes and scores queries; all
else is pure. A request's seed hangs on its place in the search, and nothing on what is in flight, so the order in which
replies come changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from eval.best_of_n import FAILED
from eval.candidates import TIERS, CandidatePool, PoolResults, as_candidates, chosen_query
from tree.prompts import Attempt, Message, chat, revision_chat
from tree.replies import extract_sql
from tree.sql.canonical import canonical_sql
from tree.sql.results import Result
from tree.tree_builder import Fits, Position, Sample, node_seed
from tree.tree_node import Question

Worth = tuple[int, float]  # tier of the outcome, reward


@dataclass(frozen=True)
class SearchSettings:
    """`num_roots` drafts of a question, then rounds in which the `beam` best queries get `sample_num` revisions each.

    In all `budget` queries are drawn. `revision` is one of `tree.prompts.REVISIONS`.
    """

    num_roots: int
    sample_num: int
    beam: int
    budget: int
    revision: str
    seed: int

    @property
    def most_rounds(self) -> int:
        """Rounds when each revises a whole beam."""
        return -(-(self.budget - self.num_roots) // (self.beam * self.sample_num))


@dataclass(frozen=True)
class Rated:
    """What executing a query gave, and its reward."""

    result: Result
    reward: float


Rate = Callable[[Sequence[str]], Awaitable[list[Rated]]]


@dataclass(frozen=True)
class SearchNode:
    """A query of a search ("" for a reply without one, which has no reward).

    `position` says which draft it is, or of which one the revision of the revision …: (3, 0) is the first revision of
    the fourth draft.
    """

    position: Position
    sql: str
    rated: Rated | None
    tokens: int
    logprob: float | None

    @property
    def worth(self) -> Worth:
        """What queries are revised by, higher first: those with rows before empty ones before failing ones; reward."""
        return TIERS.get(self.rated.result.outcome, FAILED), self.rated.reward

    def to_json(self) -> dict:
        name = ".".join(map(str, self.position))
        outcome, feedback = "no_sql", ""
        if self.rated:
            outcome, feedback = self.rated.result.outcome, self.rated.result.feedback
        return {
            "node_id": name,
            "parent_id": name.rpartition(".")[0] or None,
            "d": len(self.position),
            "generated_sql": self.sql,
            "execution_feedback": feedback,
            "outcome": outcome,
            "reward": self.rated and self.rated.reward,
            "tokens": self.tokens,
            "logprob": self.logprob,
        }


@dataclass(frozen=True)
class DrawRequest:
    """A request for `count` queries: the position of the one that is revised, () for drafts, and its chat.

    `first` queries were drawn by the same request before: those that follow are the same whether asked for with them or
    by themselves, because vLLM adds a sample's number to the seed of its request.
    """

    position: Position
    messages: list[Message]
    count: int
    first: int = 0


# --- which queries are revised ----------------------------------------------------------------------------------------


def next_requests(nodes: Sequence[SearchNode], task: str, settings: SearchSettings, fits: Fits) -> list[DrawRequest]:
    """The requests of the next round, for the best queries that were not revised yet; none when there is nothing to do.

    Queries that are equal in canonical form are one. One whose chat leaves no room for a reply is passed over, and the
    last request asks for what the budget has left.
    """
    at = {node.position: node for node in nodes}
    revised = {canonical_sql(at[node.position[:-1]].sql) for node in nodes if len(node.position) > 1}
    left = settings.budget - len(nodes)
    requests: list[DrawRequest] = []
    for node in sorted((node for node in nodes if node.rated), key=lambda node: node.worth, reverse=True):
        if len(requests) == settings.beam or not left:
            break
        if canonical_sql(node.sql) in revised:
            continue
        revised.add(canonical_sql(node.sql))
        path = [at[node.position[: depth + 1]] for depth in range(len(node.position))]
        attempts = [Attempt(above.sql, above.rated.result.feedback) for above in path]
        messages = revision_chat(settings.revision, task, attempts)
        if fits(messages):
            count = min(settings.sample_num, left)
            left -= count
            requests.append(DrawRequest(node.position, messages, count))
    return requests


def best(nodes: Sequence[SearchNode]) -> Worth:
    """The worth of the best query; below all others where there is none."""
    return max((node.worth for node in nodes if node.rated), default=(FAILED - 1, 0.0))


def chosen(question: Question, task: str, nodes: Sequence[SearchNode], choose: str) -> str:
    """The answer, as `evaluate.py` chooses it of the same candidates; "" where there is no query."""
    pool = CandidatePool(question, task, [node.sql for node in nodes])
    rated = {node.sql: node.rated for node in nodes if node.rated}
    results = {sql: one.result for sql, one in rated.items()}
    rewards = {(pool.conversation, sql): one.reward for sql, one in rated.items()}
    return chosen_query(pool, as_candidates(pool, PoolResults(results, ""), rewards), choose)


# --- the search -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Drawing:
    """Draws queries of one question; what was rated is `known`, so that equal texts are rated once."""

    question_id: int
    seed: int
    sample: Sample
    rate: Rate
    known: dict[str, Rated] = field(default_factory=dict)

    async def draw(self, requests: Sequence[DrawRequest]) -> list[SearchNode]:
        """The queries of several requests, which are in flight together, in the order of the requests."""
        seeds = [node_seed(self.seed, self.question_id, request.position) + request.first for request in requests]
        asked = [
            self.sample(one.messages, one.count, seed, bool(one.position))
            for one, seed in zip(requests, seeds, strict=True)
        ]
        drawn = await asyncio.gather(*asked)
        written = [
            ((*request.position, number), extract_sql(reply.text), reply)
            for request, replies in zip(requests, drawn, strict=True)
            for number, reply in enumerate(replies, request.first)
        ]
        if new := list(dict.fromkeys(sql for _, sql, _ in written if sql and sql not in self.known)):
            self.known.update(zip(new, await self.rate(new), strict=True))
        return [
            SearchNode(position, sql, self.known.get(sql), reply.tokens, reply.logprob)
            for position, sql, reply in written
        ]


async def search(
    question_id: int, task: str, settings: SearchSettings, sample: Sample, rate: Rate, fits: Fits
) -> tuple[list[SearchNode], int]:
    """All queries that were drawn for a question: drafts, their revisions round by round, further drafts; and the
    number of rounds.

    `task` is the initial prompt, `sample(messages, n, seed, revises)` draws replies (`revises`: to a request for
    revisions), `rate(queries)` executes and scores them, `fits(messages)` says whether a chat leaves room for a reply.
    """
    drawing = _Drawing(question_id, settings.seed, sample, rate)
    nodes = await drawing.draw([DrawRequest((), chat(task), settings.num_roots)])
    rounds, improved = 0, True
    while improved and (requests := next_requests(nodes, task, settings, fits)):
        revisions = await drawing.draw(requests)
        improved = best(revisions) > best(nodes)
        nodes += revisions
        rounds += 1
    if left := settings.budget - len(nodes):
        nodes += await drawing.draw([DrawRequest((), chat(task), left, settings.num_roots)])
    return nodes, rounds
