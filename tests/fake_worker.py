"""One worker with a deterministic generator, which tests can kill:  python -m tests.fake_worker [flags]

The environment says what goes wrong: KILL_AT=n dies of SIGKILL around the n-th fsync or rename, FILE_SIZE is the
largest file in bytes, REPLY_SECONDS the longest time of a reply; FAIL_ON, CRASH_ON and ENGINE_DIES_ON hold a part of a
question, which then raises, takes the process down, or takes the engine down.
"""

import asyncio
import ctypes
import os
import random
import resource
import signal
from collections.abc import Callable

from common.files import run_script
from tests.shop import QUESTIONS
from tree import run_pipeline
from tree.replies import EngineDied, Reply

BY_LUCK = {"SELECT 3", 'SELECT COUNT(*) FROM "order"'}  # there are three products and three orders
WRONG = [*sorted(BY_LUCK), "SELECT name FROM product", "SELECT nme FROM product", "SELECT 1", None]


class FakeGenerator:
    """Replies that depend on the seed and the question alone, right ones among them."""

    def __init__(self, *_):
        print("starting the engine")
        self.requests = 0

    def fits(self, messages) -> bool:
        return len(messages[0]["content"]) < 5_000

    async def sample(self, messages, n, seed, revises=False):
        self.requests += 1
        gold = next(sql for question, sql in QUESTIONS if question in messages[0]["content"])
        drawn = random.Random(seed).choices([gold, *WRONG], k=n)
        return [Reply(f"```sql\n{sql}\n```" if sql else "I cannot say.", 10) for sql in drawn]

    def counts(self) -> dict[str, int]:
        return {"requests": self.requests, "prompt_tokens": 9, "cached_prompt_tokens": 3, "output_tokens": 8}

    def close(self) -> None:
        pass


class FaultyGenerator(FakeGenerator):
    """The same replies after some time, and whatever the environment wants to go wrong."""

    async def sample(self, messages, n, seed, revises=False):
        await asyncio.sleep(random.random() * float(os.environ.get("REPLY_SECONDS", "0.05")))
        asked = messages[0]["content"]

        def named(fault: str) -> bool:
            return fault in os.environ and os.environ[fault] in asked

        if named("FAIL_ON"):
            raise ValueError("this question\nis too hard")
        if named("CRASH_ON"):
            ctypes.string_at(0)
        if named("ENGINE_DIES_ON"):
            print("(EngineCore pid=7) ERROR 01-01 10:00:00 [core.py:9] RuntimeError: no more memory\n" + "more\n" * 9)
            raise EngineDied("the engine died; vLLM's messages above may say why")
        return await super().sample(messages, n, seed, revises)


def kill_at(number: int) -> None:
    """Die of SIGKILL at the `number`-th fsync or rename from now on, before it or after it in turn."""
    count = 0

    def dying(call):
        def wrapped(*arguments):
            nonlocal count
            count += 1
            if count == number and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    os.fsync, os.replace = dying(os.fsync), dying(os.replace)


def in_child(work: Callable[[], None]) -> int:
    """How a forked process that does the work ends: 0, or the signal that killed it."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(99)
    return os.waitpid(child, 0)[1]


def encode(_, messages) -> list[int]:
    return list(messages[0]["content"].encode())


def pretend(change: Callable = setattr, sampler: type = FakeGenerator) -> None:
    """Put the fakes in place of vLLM and transformers, which take seconds to load; few trees grow at a time."""
    change(run_pipeline, "Generator", sampler)
    change(run_pipeline, "encode", encode)
    change(run_pipeline, "load_tokenizer", lambda model: None)
    change(run_pipeline, "sequences_at_once", lambda asked: 1)


if __name__ == "__main__":
    pretend(sampler=FaultyGenerator)
    if "KILL_AT" in os.environ:
        kill_at(int(os.environ["KILL_AT"]))
    if "FILE_SIZE" in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["FILE_SIZE"]), resource.RLIM_INFINITY))
    run_script(run_pipeline.main)
