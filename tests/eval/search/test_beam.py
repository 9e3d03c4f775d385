"""The search of one question: what is revised, when it stops, and that nothing hangs on what comes first."""

import asyncio
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.search.beam import Rated, SearchSettings, best, chosen, next_requests, search
from tree.prompts import REVISIONS, chat
from tree.replies import Reply
from tree.sql.canonical import canonical_sql
from tree.sql.results import Result
from tree.tree_builder import node_seed
from tree.tree_node import Question

TASK = "The task.\nQuestion: How many?"
SETTINGS = SearchSettings(num_roots=3, sample_num=2, beam=2, budget=12, revision="query", seed=0)
OUTCOMES = ("ok", "ok", "empty", "error")


class World:
    """Replies that depend on the seed alone, results and rewards that depend on the query alone; after some time."""

    def __init__(self, variety: int, delays: int = 0):
        self.variety, self.delays = variety, random.Random(delays)
        self.requests: list[tuple[list, int, int]] = []
        self.rated: list[str] = []

    async def wait(self) -> None:
        for _ in range(self.delays.randrange(4)):
            await asyncio.sleep(0)

    async def sample(self, messages, n, seed, revises) -> list[Reply]:
        self.requests.append((messages, n, seed))
        await self.wait()
        drawn = random.Random(seed)
        numbers = [drawn.randrange(self.variety) for _ in range(n)]
        texts = [drawn.choice([f"SELECT {number}", f"select  {number}", ""]) for number in numbers]
        return [Reply(f"```sql\n{sql}\n```" if sql else "I cannot say.", 7, -1.5) for sql in texts]

    async def rate(self, queries) -> list[Rated]:
        self.rated += queries
        await self.wait()
        return [rated(sql) for sql in queries]

    def found(self, settings: SearchSettings, fits=lambda messages: True) -> tuple:
        return asyncio.run(search(5, TASK, settings, self.sample, self.rate, fits))


class Rising(World):
    """Every new query is better than all before."""

    async def rate(self, queries) -> list[Rated]:
        self.rated += queries
        return [known(sql, "ok", float(self.rated.index(sql))) for sql in queries]


def rated(sql: str) -> Rated:
    drawn = random.Random(sql)
    return known(sql, drawn.choice(OUTCOMES), drawn.gauss(0, 1))


def known(sql: str, outcome: str, reward: float) -> Rated:
    return Rated(Result(outcome, sql, None, f"It said {sql}."), reward)


@st.composite
def settings(draw) -> SearchSettings:
    roots = draw(st.integers(1, 6))
    numbers = {name: draw(st.integers(1, 3)) for name in ("sample_num", "beam")}
    budget = roots + draw(st.integers(0, 14))
    return SearchSettings(roots, **numbers, budget=budget, revision=draw(st.sampled_from(REVISIONS)), seed=1)


@given(settings(), st.integers(1, 30))
def test_the_budget_is_spent_and_every_text_is_rated_once(settings, variety):
    world = World(variety)
    nodes, rounds = world.found(settings)
    assert len(nodes) == sum(n for _, n, _ in world.requests) == settings.budget
    assert sorted(world.rated) == sorted({node.sql for node in nodes} - {""})
    assert all(node.rated == (rated(node.sql) if node.sql else None) for node in nodes)
    at = {node.position: node for node in nodes}
    assert len(at) == len(nodes)
    parents = {node.position[:-1] for node in nodes} - {()}
    assert parents <= at.keys() and all(at[parent].sql for parent in parents)
    revised = [canonical_sql(at[parent].sql) for parent in parents]
    assert len(set(revised)) == len(revised)  # no query is revised twice
    assert rounds <= len(parents) <= rounds * settings.beam
    further = [node for node in nodes if len(node.position) == 1][settings.num_roots :]
    assert further == nodes[len(nodes) - len(further) :]
    assert [node.position for node in further] == [(settings.num_roots + number,) for number in range(len(further))]
    seeds = {node_seed(1, 5, place) for place in {(), *parents}}
    # those that a request for all drafts would have drawn
    seeds |= {node_seed(1, 5, ()) + settings.num_roots} if further else set()
    assert {seed for _, _, seed in world.requests} == seeds


@given(settings(), st.integers(1, 30), st.integers(1, 9))
def test_the_order_in_which_replies_come_changes_nothing(settings, variety, delays):
    assert World(variety).found(settings) == World(variety, delays).found(settings)


@given(settings(), st.integers(1, 30))
def test_it_goes_on_just_as_long_as_rounds_improve(settings, variety):
    nodes, rounds = World(variety).found(settings)
    count = settings.num_roots
    for number in range(1, rounds + 1):
        before, requests = nodes[:count], next_requests(nodes[:count], TASK, settings, lambda messages: True)
        count += sum(request.count for request in requests)
        improved = best(nodes[len(before) : count]) > best(before)
        assert improved or number == rounds
    assert all(len(node.position) == 1 for node in nodes[count:])
    nodes = nodes[:count]
    if not rounds or improved:
        assert next_requests(nodes, TASK, settings, lambda messages: True) == []


def test_a_round_that_only_repeats_the_best_query_is_the_last():
    async def sample(messages, n, seed, revises):
        return [Reply(f"```sql\nSELECT {number}\n```", 7) for number in range(n)]

    async def rate(sqls):
        return [known(sql, "ok", -float(sql[-1])) for sql in sqls]

    one_at_a_time = replace(SETTINGS, beam=1, sample_num=1)
    nodes, rounds = asyncio.run(search(5, TASK, one_at_a_time, sample, rate, lambda messages: True))
    assert [node.position for node in nodes[:5]] == [(0,), (1,), (2,), (0, 0), (3,)] and rounds == 1
    assert nodes[0].sql == nodes[3].sql


def test_as_many_drafts_as_the_budget_are_best_of_n():
    """One request, that of first attempts, and no revision."""
    world = World(9)
    nodes, rounds = world.found(replace(SETTINGS, num_roots=12))
    assert world.requests == [(chat(TASK), 12, node_seed(0, 5, ()))]
    assert rounds == 0 and [node.position for node in nodes] == [(number,) for number in range(12)]


@pytest.fixture
def drafts():
    """Five drafts: rows come before no rows before failures, whatever the reward; two are one query."""
    rows = [("a", "error", 9.0), ("b", "empty", 5.0), ("c", "ok", 1.0), ("C", "ok", 0.5), ("d", "ok", 0.0)]
    queries = {f"SELECT {name} FROM t": known(name, outcome, reward) for name, outcome, reward in rows}

    async def sample(messages, n, seed, revises):
        return [Reply(f"```sql\n{sql}\n```", 7) for sql in queries][:n]

    async def rate(sqls):
        return [queries[sql] for sql in sqls]

    only = replace(SETTINGS, num_roots=5, budget=5)
    return asyncio.run(search(5, TASK, only, sample, rate, lambda messages: True))[0]


def test_the_best_by_tier_and_reward_are_revised_each_query_once(drafts):
    def asked(beam: int, budget: int, fits=lambda messages: True) -> list[tuple]:
        requests = next_requests(drafts, TASK, replace(SETTINGS, beam=beam, budget=budget), fits)
        return [(request.position, request.count) for request in requests]

    assert asked(2, 24) == [((2,), 2), ((4,), 2)]  # c and d: C is c in another letter case
    assert asked(9, 24) == [((2,), 2), ((4,), 2), ((1,), 2), ((0,), 2)]
    assert asked(2, 8) == [((2,), 2), ((4,), 1)] and asked(2, 6) == [((2,), 1)] and asked(2, 5) == []
    # one whose chat leaves no room for a reply is passed over
    assert asked(2, 24, lambda messages: "SELECT c" not in messages[0]["content"]) == [((4,), 2), ((1,), 2)]


def test_a_revision_is_shown_what_executing_its_query_said(drafts):
    [first, _] = next_requests(drafts, TASK, replace(SETTINGS, budget=24), lambda messages: True)
    [message] = first.messages
    assert "SELECT c FROM t" in message["content"] and "It said c." in message["content"]
    assert message["content"].endswith("Question: How many?")


def test_a_chat_holds_all_queries_of_the_path():
    world = Rising(200)
    nodes, rounds = world.found(replace(SETTINGS, revision="chat", budget=13))
    assert rounds == 3 and max(len(node.position) for node in nodes) > 1
    at = {node.position: node for node in nodes}
    deepest = max((node.position for node in nodes), key=len)[:-1]
    seed = node_seed(0, 5, deepest)
    [messages] = [messages for messages, _, asked in world.requests if asked == seed]
    shown = [message["content"] for message in messages if message["role"] == "assistant"]
    assert len(deepest) > 1
    assert shown == [f"```sql\n{at[deepest[: depth + 1]].sql}\n```" for depth in range(len(deepest))]


def test_the_answer_is_chosen_by_rule(drafts):
    question = Question(5, "shop", "How many?", "", "")
    by = {rule: chosen(question, TASK, drafts, rule) for rule in ("reward", "executes_reward", "reward_vote")}
    assert by["reward"] == "SELECT a FROM t" and by["executes_reward"] == "SELECT c FROM t"
    assert by["reward_vote"] == "SELECT c FROM t"
    nothing = [replace(node, sql="", rated=None) for node in drafts]
    assert chosen(question, TASK, nothing, "reward_vote") == chosen(question, TASK, [], "reward_vote") == ""
    assert next_requests(nothing, TASK, replace(SETTINGS, budget=24), lambda messages: True) == []


def test_nodes_as_json_tell_their_parents():
    nodes, _ = World(200).found(SETTINGS)
    rows = [node.to_json() for node in nodes]
    ids = [row["node_id"] for row in rows]
    assert ids[:3] == ["0", "1", "2"] and len(set(ids)) == len(ids)
    for row in rows:
        assert row["parent_id"] in ids if row["d"] > 1 else row["parent_id"] is None
        assert row["node_id"].count(".") == row["d"] - 1
        assert (row["reward"] is None) == (row["outcome"] == "no_sql") == (row["generated_sql"] == "")
        assert row["tokens"] == 7 and row["logprob"] == -1.5
