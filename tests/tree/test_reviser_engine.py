"""vLLM itself with a reviser: a random adapter of a tiny random model, in one engine with the model as it is."""

import asyncio

import pytest
import torch

from tree.generator import EngineSettings, Generator, Reviser, Sampling, encode, load_tokenizer
from tree.prompts import chat

TASK = chat("How many?")
LENGTH = 8  # tokens of a reply


@pytest.fixture(scope="module")
def adapted(tiny_generator, tmp_path_factory):
    """The model with a random adapter as PEFT computes it, and the adapter's folder."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_generator, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=12, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    folder = tmp_path_factory.mktemp("reviser")
    model.save_pretrained(folder)
    return model.eval(), folder


@pytest.fixture(scope="module")
def answers(adapted, tiny_generator):
    """Log-probabilities of the likeliest replies of one engine, alone and side by side."""
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    async def ask() -> dict:
        reviser = Reviser(adapted[1], "facts", 12, layers)
        settings = EngineSettings(512, max_num_seqs=16, dtype="float32", reviser=reviser)
        sampling = Sampling(0.0, 1.0, 0, LENGTH)
        generator = Generator(tiny_generator, load_tokenizer(tiny_generator), sampling, settings)
        try:
            alone = [await generator.sample(TASK, 1, 1, revises) for revises in (False, True)]
            together = [generator.sample(TASK, 1, 1, revises) for revises in (False, True) * 4]
            return {"alone": alone, "together": await asyncio.gather(*together)}
        finally:
            generator.close()

    replies = asyncio.run(ask())
    return {name: [reply.logprob for (reply,) in of_name] for name, of_name in replies.items()}


def likeliest(model, tokenizer) -> float:
    """The log-probability of the likeliest reply as transformers computes it."""
    ids = torch.tensor([encode(tokenizer, TASK)])
    total = 0.0
    for _ in range(LENGTH):
        with torch.no_grad():
            logprobs = model(ids).logits[0, -1].log_softmax(-1)
        total += logprobs.max().item()
        ids = torch.cat([ids, logprobs.argmax().view(1, 1)], dim=1)
        if ids[0, -1] == tokenizer.eos_token_id:
            break
    return total


def test_first_attempts_are_the_models_and_revisions_the_adapters(answers, adapted, tiny_generator):
    """Also where both are in one batch."""
    model, tokenizer = adapted[0], load_tokenizer(tiny_generator)
    with model.disable_adapter():
        of_model = likeliest(model, tokenizer)
    of_adapter = likeliest(model, tokenizer)
    assert of_model != pytest.approx(of_adapter, abs=0.1)
    assert answers["alone"] == pytest.approx([of_model, of_adapter], abs=1e-2)
    assert answers["together"] == pytest.approx([of_model, of_adapter] * 4, abs=1e-2)
