"""What the simulation of many GPUs is made of: trees, one engine, and shards on GPUs."""

import math
from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scale_simulation import (
    NODES,
    Engine,
    Figures,
    Gpu,
    SimulatedRequest,
    Tree,
    beta_shape,
    cluster,
    draw_tree,
    makespan,
    shares_right,
)
from tree.tree_node import Question

ENGINE = Figures(one_rate=100, full_rate=1_000, read_rate=1_000, schema_tokens=500, question_tokens=100)
DRAWN = Figures(spread=0.5, slow_queries=0.1, sql_timeout=30, sql_seconds=0.1, repeated=0.2)


def test_the_shares_of_right_replies_have_the_measured_figures():
    figures = Figures(pass_at_1=0.38, pass_at_4=0.6, alike=0.1)
    questions = [Question(number, f"db{number % 50}", "", "", "") for number in range(20_000)]
    shares = shares_right(questions, figures, Random(0))
    assert mean(shares) == pytest.approx(0.38, abs=0.01)
    assert mean(1 - (1 - share) ** 4 for share in shares) == pytest.approx(0.6, abs=0.01)
    a, b = beta_shape(0.38, 0.6)
    assert a / (a + b) == pytest.approx(0.38)


@given(st.integers(), st.floats(0, 1))
def test_a_tree_has_no_more_queries_than_its_bound(seed, right):
    tree = draw_tree(Question(0, "db", "", "", ""), right, 60, DRAWN, Random(seed))
    requests, queue = [], [tree.first]
    while queue:
        requests.append(queue.pop())
        queue += requests[-1].children
    assert len(requests) == tree.requests and 4 <= sum(request.n for request in requests) <= NODES
    assert right < 1 or requests == [tree.first]


def test_one_reply_takes_what_its_tokens_prompt_and_sql_take():
    tree = Tree("db", SimulatedRequest(1, 50, 2.0, [SimulatedRequest(1, 100, 3.0, [])]), 2)
    assert Engine(ENGINE).grow([tree]) == pytest.approx(0.6 + 0.5 + 2 + 1 + 3)
    # the schema is in the prefix cache for the second tree; two replies at a time are slower than one
    both = Engine(ENGINE).grow(
        [Tree("db", SimulatedRequest(1, 50, 0.0, []), 1), Tree("db", SimulatedRequest(1, 50, 0.0, []), 1)]
    )
    assert both == pytest.approx(0.7 + 0.5 * 1.1)


@given(st.integers(1, 60), st.integers(0, 5))
def test_an_engine_is_never_faster_than_its_full_rate(count, seed):
    random = Random(seed)
    trees = [draw_tree(Question(0, "db", "", "", ""), 0.4, 60, DRAWN, random) for _ in range(count)]
    tokens, queue = 0.0, [tree.first for tree in trees]
    while queue:
        request = queue.pop()
        tokens += request.n * request.tokens
        queue += request.children
    assert Engine(ENGINE).grow(trees) >= tokens / ENGINE.full_rate


def test_shards_go_to_the_gpu_that_is_free():
    assert makespan([30, 20, 10], cluster("equal", 2, 0), start=5) == 40
    assert makespan([30, 20, 10], cluster("equal", 2, 0), start=5, kept=True) == 35
    assert makespan([30, 30], [Gpu(0.5), Gpu(1)], start=5) == 65


def test_what_a_lost_gpu_has_not_done_is_done_by_another():
    gpus = [Gpu(), Gpu(gone=15)]
    assert makespan([30, 30], gpus, start=5) == 5 + 30 + 5 + 20
    assert makespan([30, 30, 1], [Gpu(gone=math.inf), Gpu(gone=2)], start=5) == 35 + 35 + 6


@given(st.lists(st.floats(1, 100), min_size=1, max_size=20), st.integers(1, 8))
def test_a_makespan_lies_between_the_work_over_the_gpus_and_all_of_it(durations, gpus):
    found = makespan(durations, cluster("equal", gpus, 0), start=0)
    assert max(max(durations), sum(durations) / gpus) - 1e-6 <= found <= sum(durations) + 1e-6
