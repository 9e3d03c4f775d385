"""A search whose generator and reward model are deterministic and light, which tests can kill."""

import random
from collections.abc import Callable

from eval.search import settings
from eval.search.score_queue import ScoreQueue
from tests.fake_worker import FakeGenerator, encode
from tree import search


def rewards_of(questions) -> list[list[float]]:
    """In the place of `reward.model.score`: numbers that depend on prompt and answer alone."""
    return [[random.Random(f"{prompt}/{answer}").gauss(0, 1) for answer in answers] for prompt, answers in questions]


def pretend(change: Callable = setattr, generator: type = FakeGenerator, rewards: Callable | None = rewards_of) -> None:
    """Put the fakes in place of vLLM and transformers, and of the reward model unless `rewards` is None."""
    change(search, "Generator", generator)
    change(search, "encode", encode)
    change(search, "load_tokenizer", lambda model: None)
    change(search, "sequences_at_once", lambda asked: 1)
    change(settings, "on_gpu", lambda: False)
    if rewards:
        change(search, "load_rewards", lambda settings: ScoreQueue(rewards))
