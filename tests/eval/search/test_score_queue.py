"""Rewards for many coroutines: batches, the same numbers, and failures that stay with whom they concern."""

import asyncio
import threading

import pytest

from eval.search import score_queue
from eval.search.score_queue import ScoreQueue
from reward.model import load_reward_model, score


class Lengths:
    """In the place of a model: an answer's length is its reward. Each batch waits until it is let go."""

    def __init__(self):
        self.batches: list[list[str]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, questions) -> list[list[float]]:
        self.may_go.wait(10)
        self.batches.append([prompt for prompt, _ in questions])
        if any("broken" in answers for _, answers in questions):
            raise ValueError("an answer is broken")
        return [[float(len(answer)) for answer in answers] for _, answers in questions]


async def settle() -> None:
    """Let all coroutines run as far as they can."""
    for _ in range(9):
        await asyncio.sleep(0)


def test_what_waits_while_a_batch_is_computed_is_the_next_batch():
    model = Lengths()
    model.may_go.clear()

    async def main() -> list:
        queue = ScoreQueue(model)
        first = asyncio.create_task(queue.score("0", ["a"]))
        await settle()
        others = [asyncio.create_task(queue.score(str(number), ["b" * number, ""])) for number in (1, 2, 3)]
        await settle()
        model.may_go.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(main()) == [[1.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
    assert model.batches == [["0"], ["1", "2", "3"]]


def test_a_batch_is_bounded_by_its_candidates(monkeypatch):
    monkeypatch.setattr(score_queue, "MOST", 4)
    model = Lengths()
    sizes = {"a": 3, "b": 1, "c": 9, "d": 2, "e": 2, "f": 1}

    async def main() -> list:
        queue = ScoreQueue(model)
        return await asyncio.gather(*(queue.score(name, ["x"] * size) for name, size in sizes.items()))

    assert list(map(len, asyncio.run(main()))) == list(sizes.values())
    assert model.batches == [["a", "b"], ["c"], ["d", "e"], ["f"]]


def test_one_that_fails_takes_no_other_with_it():
    model = Lengths()

    async def main() -> list:
        queue = ScoreQueue(model)
        asked = [queue.score("0", ["a"]), queue.score("1", ["broken"]), queue.score("2", ["bb"])]
        found = await asyncio.gather(*asked, return_exceptions=True)
        return [*found, await queue.score("3", ["ccc"])]  # and the queue goes on

    one, failed, other, later = asyncio.run(main())
    assert (one, other, later) == ([1.0], [2.0], [3.0])
    assert isinstance(failed, ValueError)


def test_one_that_is_cancelled_while_it_waits_harms_no_other():
    model = Lengths()
    model.may_go.clear()

    async def main() -> list[float]:
        queue = ScoreQueue(model)
        gone, kept = (asyncio.create_task(queue.score(name, [name])) for name in ("gone", "kept"))
        await settle()
        gone.cancel()
        await settle()
        model.may_go.set()
        return await kept

    assert asyncio.run(main()) == [4.0]


def test_rewards_do_not_hang_on_the_batch(tiny_model):
    model, tokenizer = load_reward_model(tiny_model, None, "float32")
    asked = [(f"Question {n} on one schema", [f"SELECT {m} FROM t" for m in range(n % 3 + 1)]) for n in range(9)]

    async def main() -> list:
        queue = ScoreQueue(lambda questions: score(model, tokenizer, questions, batch_size=4))
        return await asyncio.gather(*(queue.score(*one) for one in asked))

    for one, found in zip(asked, asyncio.run(main()), strict=True):
        [alone] = score(model, tokenizer, [one])
        assert found == pytest.approx(alone, abs=1e-5)
