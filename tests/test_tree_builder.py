"""Growing trees with a fake sampler: the tree depends on the answers, never on when they come."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tree.sandbox import Execution, Verdict
from tree.sql_text import canonical_sql
from tree.tree_builder import Growth, grow, node_seed
from tree.tree_node import INITIAL, Question, tree_to_json

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

    async def sample(self, messages, n, seed):
        self.chats.append(messages)
        self.seeds.append(seed)
        await self._wait()
        draw = random.Random(seed)
        return [f"```sql\nSELECT {draw.randrange(self.queries)}\n```" for _ in range(n)]

    async def judge(self, queries):
        await self._wait()
        verdicts = [int(sql.split()[1]) < self.right for sql in queries]
        wrong = Execution("ok", columns=("a",), rows=((0,),), row_count=1)
        return [Verdict(wrong, GOLD, right, right) for right in verdicts]


def tree_of(timing: int, growth: Growth, **services):
    fake = Services(timing, **services)
    return asyncio.run(grow(QUESTION, "task", growth, fake.sample, fake.judge)), fake


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_timing_changes_nothing(one, other, depth, samples, seed):
    growth = Growth(depth, samples, seed=seed)
    first, second = tree_of(one, growth)[0], tree_of(other, growth)[0]
    assert tree_to_json(first) == tree_to_json(second)
    assert list(first.nodes) == sorted(first.nodes, key=lambda name: tuple(map(int, name.split("_")[1:])))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_only_wrong_new_queries_are_revised(seed, depth, samples):
    tree, fake = tree_of(0, Growth(depth, samples, seed=seed))
    seen = set()
    for node in tree.nodes.values():
        key = canonical_sql(node.generated_sql)
        assert (node.duplicate_of is not None) == (key in seen)
        seen.add(key)
        expandable = not node.is_correct and not node.duplicate_of and node.d < depth
        assert node.revised == expandable
        assert len(node.children_ids) == (samples if expandable else 0)
    assert len(fake.seeds) == len(set(fake.seeds)) == 1 + sum(node.revised for node in tree.nodes.values())


def test_a_revision_shows_the_path_and_never_gold():
    tree, fake = tree_of(0, Growth(max_depth=3, sample_num=2), right=0, queries=1000)
    deepest = max(fake.chats, key=len)
    assert [message["role"] for message in deepest] == ["user", "assistant", "user", "assistant", "user"]
    assert all("42" not in message["content"].replace("SELECT 42", "") for chat in fake.chats for message in chat)
    assert tree.good is False and tree.feedback == "own"


def test_oracle_feedback_shows_gold_and_is_recorded():
    tree, fake = tree_of(0, Growth(max_depth=2, sample_num=2, feedback="oracle"), right=0)
    assert any("(42)" in chat[-1]["content"] for chat in fake.chats[1:])
    assert tree_to_json(tree)["feedback"] == "oracle"


def test_a_chat_that_does_not_fit_is_not_revised():
    fake = Services(0, right=0)
    tree = asyncio.run(
        grow(QUESTION, "task", Growth(3, 2), fake.sample, fake.judge, fits=lambda messages: len(messages) <= 3)
    )
    assert tree.max_depth == 2
    assert not any(node.revised for node in tree.nodes.values() if node.d == 2)


def test_seeds_depend_on_run_question_and_node():
    seeds = {node_seed(run, question, node) for run in (0, 1) for question in (0, 1) for node in (INITIAL, "node_1_0")}
    assert len(seeds) == 8 and all(0 <= seed < 2**31 for seed in seeds)
