"""vLLM itself, with a tiny random model: one engine for all tests, because starting it takes half a minute."""

import asyncio
import multiprocessing
import os
import signal

import pytest

from tree.generator import EngineSettings, Generator, Sampling, encode, load_tokenizer
from tree.prompts import chat
from tree.replies import OPENING, EngineDied

LENGTH, SEQUENCES = 512, 16


@pytest.fixture(scope="module")
def answers(tiny_generator):
    """What one engine answered to all requests of this page, and its counts."""

    async def ask(patch: pytest.MonkeyPatch) -> dict:
        patch.setattr("tree.generator.BATCHED_TOKENS", LENGTH)  # so that the long prompts take many steps
        tokenizer = load_tokenizer(tiny_generator)
        settings = EngineSettings(LENGTH, max_num_seqs=SEQUENCES)
        generator = Generator(tiny_generator, tokenizer, Sampling(1.0, 1.0, 0, 24), settings)
        try:
            long = [chat(f"{number} " + "x" * 400) for number in range(12)]
            found = {
                "many long prompts": await asyncio.gather(*(generator.sample(task, 2, 5) for task in long)),
                "seed 1": await generator.sample(chat("How many?"), 3, 1),
                "seed 1 again": await generator.sample(chat("How many?"), 3, 1),
                "seed 2": await generator.sample(chat("How many?"), 3, 2),
                "counts": generator.counts(),
                "fits": [generator.fits(chat("x" * length)) for length in (1, LENGTH)],
                "tokens": len(encode(tokenizer, long[0])),
            }
            stopped = asyncio.create_task(generator.sample(chat("Stop."), 4, 1))
            await asyncio.sleep(0.05)
            stopped.cancel()
            found["after a cancelled one"] = await generator.sample(chat("Go on."), 1, 1)
            engines = multiprocessing.active_children()
            for engine in engines:
                os.kill(engine.pid, signal.SIGSTOP)  # so that it cannot answer before it dies
            asked = asyncio.create_task(generator.sample(chat("Die."), 4, 1))
            await asyncio.sleep(0.05)
            for engine in engines:
                engine.kill()
            found["when the engine dies"] = await asyncio.gather(asked, return_exceptions=True)
            return found
        finally:
            generator.close()

    with pytest.MonkeyPatch.context() as patch:
        return asyncio.run(ask(patch))


def test_seeded_prompts_that_exceed_one_step_together_are_answered(answers):
    """Prefilled in chunks, a seeded request kills vLLM's engine on a CPU."""
    assert 12 * answers["tokens"] > 4 * LENGTH
    assert [len(replies) for replies in answers["many long prompts"]] == [2] * 12


def test_a_seed_gives_the_same_replies_and_its_samples_differ(answers):
    assert answers["seed 1"] == answers["seed 1 again"] != answers["seed 2"]
    assert len({reply.text for reply in answers["seed 1"]}) == 3


def test_a_sample_is_the_same_in_another_request_whose_seed_counts_from_there(answers):
    """So the further drafts of a search are those that one request for all drafts would have drawn."""
    assert answers["seed 1"][1:] == answers["seed 2"][:-1]


def test_a_reply_begins_with_its_opening_and_counts_its_tokens(answers):
    assert all(reply.text.startswith(OPENING) and 1 <= reply.tokens <= 24 for reply in answers["seed 1"])
    # a random model finds every token about equally likely, so belief is about proportional to length
    assert all(-20 * reply.tokens < reply.logprob < -reply.tokens for reply in answers["seed 1"])
    replies = [*answers["many long prompts"], *(answers[name] for name in ("seed 1", "seed 1 again", "seed 2"))]
    assert answers["counts"]["output_tokens"] == sum(reply.tokens for group in replies for reply in group)
    assert answers["counts"]["requests"] == len(replies)
    assert 0 < answers["counts"]["cached_prompt_tokens"] < answers["counts"]["prompt_tokens"]


def test_a_prompt_must_leave_room_for_a_reply(answers):
    assert answers["fits"] == [True, False]


def test_a_cancelled_request_leaves_the_engine_alive(answers):
    assert len(answers["after a cancelled one"]) == 1


def test_the_death_of_the_engine_is_told_apart_from_a_failed_request(answers):
    [error] = answers["when the engine dies"]
    assert isinstance(error, EngineDied)


def test_an_engine_that_does_not_start_is_told_in_one_line(tiny_generator, monkeypatch):
    def fail(_):
        raise RuntimeError("Engine core initialization failed. See root cause above.")

    monkeypatch.setattr("vllm.v1.engine.async_llm.AsyncLLM.from_engine_args", fail)
    with pytest.raises(EngineDied, match="did not start"):
        Generator(tiny_generator, load_tokenizer(tiny_generator), Sampling(1.0, 1.0, 0, 24), EngineSettings(LENGTH))
