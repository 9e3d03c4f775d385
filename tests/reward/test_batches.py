"""Batches of questions: their order, and loss, gradients and steps that are those of TRL, however they are cut."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.reward_training import pair_rows
from common.preference import PreferencePair, user_prompt
from reward.batches import DatabaseSampler, QuestionCollator, question_rows
from reward.data import group_by_prompt
from reward.model import load_base
from reward.tokens import load_tokenizer, tokenize
from tests.reward.conftest import LONG

pytestmark = pytest.mark.usefixtures("small_blocks")


# --- order ---------------------------------------------------------------------------------------------------------

databases = st.lists(st.sampled_from("abc"), min_size=1, max_size=30)


@given(databases, st.integers(1, 5), st.integers(0, 3))
def test_batches_are_of_one_database_as_far_as_they_can(db_ids, batch_size, epoch):
    sampler = DatabaseSampler(db_ids, batch_size, seed=0)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler) and order == list(sampler)
    batches = [order[place : place + batch_size] for place in range(0, len(order), batch_size)]
    questions = [[number for number in batch if number < len(db_ids)] for batch in batches]
    whole = [batch for batch in questions if len(batch) == batch_size and len({db_ids[n] for n in batch}) == 1]
    assert len(whole) >= sum(db_ids.count(db_id) // batch_size for db_id in set(db_ids))


@given(databases, st.integers(1, 5), st.integers(1, 4))
def test_processes_share_the_batches_of_one_and_repeat_no_question(db_ids, batch_size, processes):
    """As accelerate deals batches out; the place behind the last question is the padding's."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    def batches(of: int) -> list[list[list[int]]]:
        sampler = BatchSampler(DatabaseSampler(db_ids, batch_size, 0, of), batch_size, drop_last=False)
        return [list(BatchSamplerShard(sampler, of, process)) for process in range(of)]

    shared, [alone] = batches(processes), batches(1)
    assert len({len(part) for part in shared}) == 1
    dealt = [batch for step in zip(*shared, strict=True) for batch in step]
    assert dealt[: len(alone)] == alone and all({*batch} == {len(db_ids)} for batch in dealt[len(alone) :])
    numbers = [number for batch in dealt for number in batch if number < len(db_ids)]
    assert sorted(numbers) == list(range(len(db_ids)))


def test_every_epoch_and_seed_has_its_order():
    sampler = DatabaseSampler(["a"] * 30, 4, seed=0)
    orders = [list(sampler), list(DatabaseSampler(["a"] * 30, 4, seed=1))]
    sampler.set_epoch(1)
    orders.append(list(sampler))
    assert len({tuple(order) for order in orders}) == 3


# --- training ------------------------------------------------------------------------------------------------------


def preference(question: int, chosen: str, rejected: str, distances=(0, None)) -> PreferencePair:
    prompt, nodes = user_prompt(LONG + "How many?" * question), ("", "")
    return PreferencePair(prompt, chosen, rejected, question, "shop", *nodes, *distances, relation="sibling")


PAIRS = [
    preference(0, "SELECT COUNT(*) FROM product", "SELECT 1"),
    preference(0, "SELECT COUNT(*) FROM product", "SELECT COUNT(id, name) FROM p", (0, 2)),
    preference(0, "SELECT COUNT(id, name) FROM p", "SELECT 1", (2, None)),
    preference(1, "SELECT name FROM product", "SELECT *"),
    preference(2, "SELECT MAX(id) FROM product", "SELECT MIN(id) FROM product"),
    preference(2, "SELECT MAX(id) FROM product", "SELECT MAX(name) FROM product WHERE 1 = 1 AND 2 = 2"),
]


def trainer_of(base, folder, packed: bool, budget: int = 400, **arguments):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import RewardConfig, RewardTrainer

    from reward.trainer import PreferenceTrainer

    tokenizer = load_tokenizer(base)
    questions = tokenize(group_by_prompt(PAIRS), tokenizer, 10_000)
    rows = question_rows(questions, ["sibling"]) if packed else pair_rows(questions)
    config = {"per_device_train_batch_size": 10, "gradient_accumulation_steps": 1} | arguments
    model = load_base(base, tokenizer.pad_token_id, torch.float32)
    if not packed:
        model.set_attn_implementation("sdpa")  # TRL's way owes nothing to ours
    return (PreferenceTrainer if packed else RewardTrainer)(
        model=model,
        args=RewardConfig(
            folder, use_cpu=True, bf16=False, max_length=None, report_to=[], remove_unused_columns=False, **config
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="SEQ_CLS", r=4, target_modules="all-linear", modules_to_save=["score"], init_lora_weights=False
        ),
        data_collator=QuestionCollator(tokenizer.pad_token_id, budget) if packed else None,
    )


def loss_and_gradients(trainer):
    if trainer.args.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable()
    [inputs] = trainer.get_train_dataloader()
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_are_those_of_trl(bases, tmp_path, architecture, checkpointing):
    ours, theirs = (
        loss_and_gradients(
            trainer_of(
                bases[architecture],
                tmp_path,
                packed,
                gradient_checkpointing=checkpointing,
            )
        )
        for packed in (True, False)
    )
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5)
    assert ours[1].keys() == theirs[1].keys() and any("score" in name for name in ours[1])
    for name, gradient in theirs[1].items():
        assert gradient.norm() > 0
        assert (ours[1][name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_a_forward_pass_of_padding_weighs_nothing(bases, tmp_path):
    """Every weight has a gradient, as processes average them, and all are zero; no token is counted."""
    trainer = trainer_of(bases["qwen2"], tmp_path, True)
    padding = trainer.train_dataset[-1]
    inputs = trainer.data_collator([padding, padding])
    assert inputs["input_ids"].numel() == 1
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=torch.tensor(6))
    loss.backward()
    assert loss.item() == 0 and trainer._seen.tolist() == [0, 0, 0, 0]
    gradients = [weight.grad for weight in trainer.model.parameters() if weight.requires_grad]
    assert gradients and not any(gradient.any() for gradient in gradients)
    questions = list(trainer.train_dataset)[:-1]
    mixed, alone = (trainer.data_collator(rows) for rows in ([*questions, padding], questions))
    assert mixed.keys() == alone.keys() and all(torch.equal(mixed[name], alone[name]) for name in alone)


def weights_after(trainer):
    trainer.train()
    return {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(("batch", "accumulation", "budget"), [(1, 3, 400), (2, 2, 400), (3, 1, 10)])
def test_a_step_does_not_depend_on_how_it_is_cut(bases, tmp_path, batch, accumulation, budget):
    """Three questions with 3, 1 and 2 pairs: one step of plain TRL over the six pairs gives the same weights."""
    common = {"max_steps": 1, "learning_rate": 1e-2, "optim": "sgd", "max_grad_norm": 0.0, "logging_steps": 1}
    whole = trainer_of(bases["qwen2"], tmp_path, False, per_device_train_batch_size=6, **common)
    cut = trainer_of(
        bases["qwen2"],
        tmp_path,
        True,
        budget,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        **common,
    )
    before = {name: weight.clone() for name, weight in cut.model.named_parameters() if weight.requires_grad}
    expected, found = weights_after(whole), weights_after(cut)
    for name, weight in expected.items():
        assert (weight - before[name]).norm() > 0
        assert (found[name] - weight).norm() <= 1e-4 * (weight - before[name]).norm() + 1e-7, name
    ours, theirs = (next(entry for entry in trainer.state.log_history if "loss" in entry) for trainer in (cut, whole))
    for key in ("loss", "accuracy", "margin"):
        assert ours[key] == pytest.approx(theirs[key], abs=1e-5)
    assert ours["num_tokens"] < theirs["num_tokens"]
