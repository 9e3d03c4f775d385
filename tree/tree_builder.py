"""Grow one revision tree as a coroutine over two awaited services: a sampler and an executor of SQL."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tree import prompts
from tree.sandbox import Verdict
from tree.sql_text import canonical_sql
from tree.tree_node import INITIAL, Question, RevisionTree, TreeNode

Sample = Callable[[Sequence[prompts.Message], int, int], Awaitable[list[str]]]
Judge = Callable[[Sequence[str]], Awaitable[list[Verdict]]]
Fits = Callable[[Sequence[prompts.Message]], bool]


@dataclass(frozen=True)
class Growth:
    """How far a tree grows: `max_depth` levels, `sample_num` samples of each prompt; `feedback` "own" or "oracle"."""

    max_depth: int
    sample_num: int
    feedback: str = "own"
    seed: int = 0


def node_seed(run_seed: int, question_id: int, node_id: str) -> int:
    """Seed of the request made at a node: 31 bits that depend on nothing else, so order and sharding change nothing."""
    digest = hashlib.sha256(f"{run_seed}/{question_id}/{node_id}".encode()).digest()
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
    Nodes are numbered breadth first whatever the order in which services answer, so the tree depends on their answers
    alone: a wrong, new query asks for its revisions as soon as it has its number, and does not wait for its level.
    """
    tree = RevisionTree(question, task, growth.feedback)
    seen: dict[str, str] = {}

    async def attempt(node_id: str, messages: list[prompts.Message]) -> list[tuple[str, Verdict]]:
        seed = node_seed(growth.seed, question.question_id, node_id)
        queries = [prompts.extract_sql(reply) for reply in await sample(messages, growth.sample_num, seed)]
        return list(zip(queries, await judge(queries), strict=True))

    def commit(parent_id: str, sql: str, verdict: Verdict) -> TreeNode:
        key = canonical_sql(sql)
        node = tree.add(
            parent_id,
            generated_sql=sql,
            execution_feedback=feedback_text(verdict, growth.feedback),
            outcome=verdict.execution.outcome,
            is_correct=verdict.ex,
            strict_match=verdict.strict,
            flags=list(verdict.execution.flags),
            duplicate_of=seen.get(key),
        )
        seen.setdefault(key, node.node_id)
        return node

    def revision(node: TreeNode) -> list[prompts.Message] | None:
        if node.is_correct or node.duplicate_of or node.d == growth.max_depth:
            return None
        turn = prompts.revision_turn(node.execution_feedback)
        turns = [(up.generated_sql, up.input_seq or turn) for up in tree.path(node)]
        messages = prompts.chat(task, turns)
        if not fits(messages):
            return None
        node.input_seq = turn
        return messages

    waiting = deque([(INITIAL, asyncio.create_task(attempt(INITIAL, prompts.chat(task))))])
    try:
        while waiting:
            parent_id, answers = waiting[0]
            for sql, verdict in await answers:
                node = commit(parent_id, sql, verdict)
                if messages := revision(node):
                    waiting.append((node.node_id, asyncio.create_task(attempt(node.node_id, messages))))
            waiting.popleft()
    finally:
        for _, answers in waiting:
            answers.cancel()
    return tree
