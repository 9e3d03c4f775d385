"""Growing trees with a fake sampler: the tree depends on the answers, never on when they come."""

import asyncio
import dataclasses
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.verify import check_tree
from tree import prompts
from tree.prompts import REVISIONS
from tree.replies import Reply
from tree.sql.canonical import canonical_sql
from tree.sql.results import Execution, Verdict
from tree.tree_builder import TreeSettings, grow, node_seed, worth
from tree.tree_node import Question, tree_to_json

TASK = "task\nQuestion: How many?"
QUESTION = Question(3, "shop", "How many?", "", "SELECT 1")
GOLD = Execution("ok", columns=("n",), rows=((42,),), row_count=1)


class Services:
    """A sampler whose replies depend on the seed alone, an executor, and delays that depend on `timing`."""

    def __init__(self, timing: int, queries: int = 12, right: int = 2):
        self.random, self.queries, self.right = random.Random(timing), queries, right
        self.chats: list[list[dict]] = []
        self.seeds: list[int] = []

    async def _wait(self) -> None:
        for _ in range(self.random.randrange(20)):
            await asyncio.sleep(0)

    async def sample(self, messages, n, seed, revises):
        self.chats.append(messages)
        self.seeds.append(seed)
        await self._wait()
        draw = random.Random(seed)
        return [Reply(f"```sql\nSELECT {draw.randrange(self.queries)}\n```", 7) for _ in range(n)]

    async def judge(self, queries):
        await self._wait()
        verdicts = [int(sql.split()[1]) < self.right for sql in queries]
        wrong = Execution("ok", columns=("a",), rows=((0,),), row_count=1)
        return [Verdict(wrong, GOLD, right, right) for right in verdicts]


def tree_of(timing: int, growth: TreeSettings, **services):
    fake = Services(timing, **services)
    return asyncio.run(grow(QUESTION, TASK, growth, fake.sample, fake.judge)), fake


growths = st.builds(
    TreeSettings,
    max_depth=st.integers(1, 4),
    num_roots=st.integers(1, 5),
    sample_num=st.integers(1, 4),
    max_nodes=st.sampled_from([0, 5, 9, 20]),
    stop_after=st.integers(0, 3),
    redraws=st.integers(0, 2),
    revision=st.sampled_from(REVISIONS),
    seed=st.integers(0, 99),
)


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(0, 10**6), growths)
def test_timing_changes_nothing(one, other, growth):
    first, second = tree_of(one, growth)[0], tree_of(other, growth)[0]
    assert tree_to_json(first) == tree_to_json(second)
    assert list(first.nodes) == sorted(first.nodes, key=lambda name: tuple(map(int, name.split("_")[1:])))


@given(st.integers(0, 10**6), growths)
def test_grown_trees_hold(timing, growth):
    assert not check_tree(tree_to_json(tree_of(timing, growth)[0])).findings


@settings(max_examples=100)
@given(st.integers(0, 10**6), growths)
def test_wrong_new_queries_are_revised_within_the_bounds(timing, growth):
    tree, fake = tree_of(timing, growth)
    seen, planned, right = set(), growth.num_roots, []
    for depth, nodes in itertools.groupby(tree.nodes.values(), key=lambda node: node.d):
        wanted = []
        for node in nodes:
            key = canonical_sql(node.generated_sql)
            assert (node.duplicate_of is not None) == (key in seen)
            seen.add(key)
            right += [node.generated_sql] if node.is_correct else []
            if not node.is_correct and not node.duplicate_of and depth < growth.max_depth:
                wanted.append(node)
            else:
                assert not node.children_ids
        for node in sorted(wanted, key=lambda node: worth(node, right)):
            within = not growth.max_nodes or planned + growth.sample_num <= growth.max_nodes
            revised = within and not (growth.stop_after and len(right) >= growth.stop_after)
            assert len(node.children_ids) == (growth.sample_num if revised else 0)
            planned += len(node.children_ids)
    assert len(tree.nodes) == planned and (not growth.max_nodes or planned <= max(growth.max_nodes, growth.num_roots))
    assert len(fake.seeds) == len(set(fake.seeds))


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_repeated_wrong_query_is_drawn_again_and_paid_for(timing, seed):
    growth = TreeSettings(max_depth=1, num_roots=4, sample_num=1, redraws=3, seed=seed)
    tree, fake = tree_of(timing, growth, queries=4)
    drawn_once, _ = tree_of(timing, dataclasses.replace(growth, redraws=0), queries=4)
    repeated, repeated_once = (
        sum(node.duplicate_of is not None and not node.is_correct for node in grown.nodes.values())
        for grown in (tree, drawn_once)
    )
    assert repeated <= repeated_once
    assert sum(node.tokens for node in drawn_once.nodes.values()) == 4 * 7
    assert (len(fake.seeds) > 1) == (repeated_once > 0)
    assert (sum(node.tokens for node in tree.nodes.values()) > 4 * 7) == (repeated_once > 0)


def test_wrong_queries_on_the_way_are_drawn_again_and_correct_ones_are_not():
    """First attempts 0 (correct) and 5 (wrong); the revision of 5 draws 5, then 0."""
    drawn = iter([[0, 5], [5], [0]])

    async def sample(messages, n, seed, revises):
        return [Reply(f"```sql\nSELECT {number}\n```", 1) for number in next(drawn)]

    growth = TreeSettings(max_depth=2, num_roots=2, sample_num=1, redraws=2)
    tree = asyncio.run(grow(QUESTION, TASK, growth, sample, Services(0, right=1).judge))
    node = tree.nodes["node_2_0"]
    assert (node.generated_sql, node.duplicate_of, node.tokens) == ("SELECT 0", "node_1_0", 2)
    assert node.is_correct and next(drawn, None) is None


def test_revisions_are_asked_for_before_slower_cousins_answer():
    """The first attempt's revisions never come; the second's are revised all the same."""

    async def scenario() -> int:
        asked = 0

        async def sample(messages, n, seed, revises):
            nonlocal asked
            asked += 1
            if asked == 2:
                await asyncio.Event().wait()
            return [Reply(f"```sql\nSELECT {10 * asked + number}\n```", 1) for number in range(n)]

        fake = Services(0, right=0)
        growing = asyncio.create_task(grow(QUESTION, TASK, TreeSettings(3, 2, 2), sample, fake.judge))
        for _ in range(100):  # turns, not seconds, of which a busy machine may take any number for one
            await asyncio.sleep(0)
        growing.cancel()
        return asked

    assert asyncio.run(scenario()) == 1 + 2 + 2


def test_what_was_asked_for_in_vain_is_cancelled():
    """A cousin that wrote the same query first arrives late: the revisions asked for meanwhile are stopped."""
    asked, stopped = [], []

    async def sample(messages, n, seed, revises):
        last = messages[-1]["content"]
        asked.append(last)
        if asked.count("SELECT 5") == 1 and last == "SELECT 5":  # asked for by the second attempt's revision
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stopped.append(last)
                raise
        if last == "SELECT 1":
            await asyncio.sleep(0.1)
        first = {TASK: 1, "SELECT 1": 5, "SELECT 2": 5, "SELECT 5": 6}[last]
        return [Reply(f"```sql\nSELECT {first + number}\n```", 1) for number in range(n)]

    async def judge(queries):
        wrong = Execution("ok", columns=("a",), rows=((0,),), row_count=1)
        return [Verdict(wrong, GOLD, sql != "SELECT 5" and sql > "SELECT 2", True) for sql in queries]

    def chat_of(revision, task, attempts):
        return [{"role": "user", "content": attempts[-1].sql if attempts else task}]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompts, "revision_chat", chat_of)
        growth = TreeSettings(max_depth=3, num_roots=2, sample_num=2)
        tree = asyncio.run(grow(QUESTION, TASK, growth, sample, judge))
    assert stopped == ["SELECT 5"] and asked.count("SELECT 5") == 2
    assert len(tree.nodes) == 8 and tree.nodes["node_2_2"].duplicate_of == "node_2_0"


def test_a_chat_shows_the_path_and_never_gold():
    growth = TreeSettings(max_depth=3, num_roots=2, sample_num=2, revision="chat")
    tree, fake = tree_of(0, growth, right=0, queries=1000)
    deepest = max(fake.chats, key=len)
    assert [message["role"] for message in deepest] == ["user", "assistant", "user", "assistant", "user"]
    assert all("42" not in message["content"].replace("SELECT 42", "") for chat in fake.chats for message in chat)
    assert tree.good is False and tree.feedback == "own" and tree_to_json(tree)["revision"] == "chat"


@pytest.mark.parametrize("revision", [name for name in REVISIONS if name != "chat"])
def test_other_revisions_stand_before_the_question(revision):
    tree, fake = tree_of(0, TreeSettings(2, 2, 2, revision=revision), right=0, queries=1000)
    asked = {chat[-1]["content"] for chat in fake.chats[1:]}
    before, question = TASK.split("\n")
    shown = {f"{before}{node.input_seq}\n{question}" for node in tree.nodes.values() if node.children_ids}
    assert shown == asked
    assert all(len(chat) == 1 for chat in fake.chats)


def test_oracle_feedback_shows_gold_and_is_recorded():
    tree, fake = tree_of(0, TreeSettings(2, 2, 2, feedback="oracle", revision="chat"), right=0)
    assert any("(42)" in chat[-1]["content"] for chat in fake.chats[1:])
    assert tree_to_json(tree)["feedback"] == "oracle"
    assert not any(tree.result(node) for node in tree.nodes.values())  # gold's rows are nothing to judge a query by


def test_a_chat_that_does_not_fit_is_not_revised():
    fake = Services(0, right=0, queries=1000)
    growth = TreeSettings(3, 2, 2, revision="chat")
    tree = asyncio.run(grow(QUESTION, TASK, growth, fake.sample, fake.judge, fits=lambda messages: len(messages) <= 3))
    assert tree.max_depth == 2
    assert not any(node.revised for node in tree.nodes.values() if node.d == 2)


def test_seeds_depend_on_run_question_place_and_draw():
    places = itertools.product((0, 1), (0, 1), ((), (0,), (0, 1), (1, 0)), (0, 1))
    seeds = {node_seed(*place) for place in places}
    assert len(seeds) == 32 and all(0 <= seed < 2**31 for seed in seeds)
