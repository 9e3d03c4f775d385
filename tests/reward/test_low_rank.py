"""LoRA's lean layers against PEFT's own."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from reward.low_rank import make_lean
from reward.model import load_base

TOKENS = torch.arange(1, 21).view(2, 10)


def adapted(tiny_model, dtype=torch.float32, dropout=0.0):
    """A base with LoRA whose B is not zero, as PEFT computes it and lean."""
    torch.manual_seed(0)
    base = load_base(tiny_model, 0, dtype)
    config = LoraConfig("SEQ_CLS", r=4, lora_alpha=12, lora_dropout=dropout, target_modules="all-linear")
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter, dtype=torch.float32) / 10
    return model, make_lean(copy.deepcopy(model))


def score_and_gradients(model, seed=0):
    torch.manual_seed(seed)
    scores = model(input_ids=TOKENS).logits
    scores.sum().backward()
    return scores.detach(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_scores_and_gradients_are_those_of_peft(tiny_model, dropout):
    peft, lean = (model.train() for model in adapted(tiny_model, dropout=dropout))
    (expected, of_peft), (found, of_lean) = score_and_gradients(peft), score_and_gradients(lean)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert of_lean.keys() == of_peft.keys() and any("lora_A" in name for name in of_lean)
    for name, gradient in of_peft.items():
        torch.testing.assert_close(of_lean[name], gradient, rtol=1e-4, atol=1e-5)


def test_on_a_bfloat16_base_they_differ_by_its_rounding_and_weights_stay_float32(tiny_model):
    peft, lean = adapted(tiny_model, torch.bfloat16)
    (expected, of_peft), (found, of_lean) = score_and_gradients(peft), score_and_gradients(lean)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    for name, gradient in of_peft.items():
        if "lora_" in name:
            assert of_lean[name].dtype == torch.float32
            similarity = nn.functional.cosine_similarity(of_lean[name].flatten(), gradient.flatten(), dim=0)
            assert similarity > 0.99


def kept_bytes(model) -> int:
    """Of the tensors that the forward pass keeps for the backward pass, each once."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = model(input_ids=TOKENS.repeat(1, 20)).logits
    assert scores.requires_grad
    return sum(kept.values())


def test_a_step_keeps_less(tiny_model):
    peft, lean = adapted(tiny_model, torch.bfloat16)
    assert kept_bytes(lean) < 0.8 * kept_bytes(peft)


def test_adapters_can_be_switched_disabled_added_and_merged(tiny_model, tmp_path):
    peft, lean = adapted(tiny_model)
    for model in (peft, lean):
        torch.manual_seed(1)
        model.add_adapter("other", LoraConfig("SEQ_CLS", r=2, target_modules="all-linear", init_lora_weights=False))

    def scores(model):
        return model(input_ids=TOKENS).logits

    before = scores(lean)
    for name in ("other", "default"):
        for model in (peft, lean):
            model.set_adapter(name)
        torch.testing.assert_close(scores(lean), scores(peft), rtol=1e-5, atol=1e-5)
    with peft.disable_adapter(), lean.disable_adapter():
        torch.testing.assert_close(scores(lean), scores(peft))
        assert not torch.allclose(scores(lean), before)
    torch.testing.assert_close(lean.merge_and_unload()(input_ids=TOKENS).logits, before, rtol=1e-4, atol=1e-4)
