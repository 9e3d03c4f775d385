"""Rewards for many coroutines at a time: what waits while one batch is computed is the next batch.

    queue = ScoreQueue(partial(score, model, tokenizer))
    rewards = await queue.score(prompt, answers)

A batch is computed in a thread, so the event loop goes on. Which requests share a batch changes a reward as little as
it does in `reward.model.score`: to float tolerance in float32, more in bfloat16.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from common.preference import Prompt

MOST = 64  # candidates that are scored together

Score = Callable[[Sequence[tuple[Prompt | str, Sequence[str]]]], list[list[float]]]  # as `reward.model.score` does


class _Waiting(NamedTuple):
    prompt: Prompt | str
    answers: Sequence[str]
    rewards: asyncio.Future


class ScoreQueue:
    """Gathers requests for rewards into batches, one of which is computed at a time by `score`."""

    def __init__(self, score: Score):
        self._score = score
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task | None = None

    async def score(self, prompt: Prompt | str, answers: Sequence[str]) -> list[float]:
        """The rewards of answers to one prompt. Raises what computing them raises."""
        request = _Waiting(prompt, answers, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._compute())
        return await request.rewards

    async def _compute(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            try:
                await self._answer(batch)
            except Exception:  # of one of them, perhaps: the others are not to fail with it
                for request in batch:
                    await self._answer_alone(request)

    def _next_batch(self) -> list[_Waiting]:
        """Those that have waited longest: MOST candidates, or one request."""
        count, candidates = 1, len(self._waiting[0].answers)
        for request in self._waiting[1:]:
            candidates += len(request.answers)
            if candidates > MOST:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        scores = await asyncio.to_thread(self._score, [(request.prompt, request.answers) for request in batch])
        for request, rewards in zip(batch, scores, strict=True):
            if not request.rewards.done():  # its coroutine was cancelled
                request.rewards.set_result(rewards)

    async def _answer_alone(self, request: _Waiting) -> None:
        try:
            await self._answer([request])
        except Exception as error:
            if not request.rewards.done():
                request.rewards.set_exception(error)
