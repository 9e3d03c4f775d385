"""One pass over many candidates gives the numbers of one pass each: scores, loss, gradients, whole steps."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.learning_curve import path_to
from bench.reward_training import pair_rows
from common.files import InputError
from common.preference import PreferencePair, task_prompt
from reward.batches import DatabaseSampler, QuestionCollator, question_rows
from reward.data import group_by_prompt
from reward.model import load_base, load_reward_model, score
from reward.packing import FLEX_ATTENTION, batches_by_length, flex_mask, pack, pad_rows, tree_mask
from reward.tokens import encode, load_tokenizer, tokenize
from tests.conftest import make_tiny_model

LONG = "Database: " + "CREATE TABLE product (id INTEGER, name TEXT); " * 6


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """So that the short rows of these tests have several."""
    from reward import packing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BLOCK", 16)
        yield


@pytest.fixture(scope="module")
def bases(tiny_model, tmp_path_factory):
    llama = make_tiny_model(tmp_path_factory.mktemp("models") / "llama", seed=1, architecture="llama")
    return {"qwen2": tiny_model, "llama": llama}


def scorer(base):
    """Model and tokenizer, with a head and attention strong enough to make rewards differ."""
    model, tokenizer = load_reward_model(base, None, "float32")
    with torch.no_grad():
        model.score.weight.mul_(20)
        for name, weight in model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                weight.mul_(10)
    return model, tokenizer


@pytest.fixture(scope="module")
def scorers(bases):
    return {name: scorer(base) for name, base in bases.items()}


@torch.no_grad()
def scores_alone(model, tokenizer, questions):
    """The reference: each candidate by itself, with transformers' own attention and reading of the score."""
    ours = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    scores = [
        [model(input_ids=torch.tensor([ids])).logits.item() for ids in encode(tokenizer, prompt, queries)]
        for prompt, queries in questions
    ]
    model.set_attn_implementation(ours)
    return scores


# --- layout ---------------------------------------------------------------------------------------------------------

token_lists = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=8), min_size=1, max_size=12)


def rows_of(sequences, budget=100, most=None):
    return pack(enumerate(sequences), budget, most)


@given(token_lists, st.integers(1, 30), st.integers(1, 5))
def test_rows_hold_each_sequence_once_as_it_would_be_alone(sequences, budget, most):
    """Along its path stand the sequence's own tokens at its own positions, and nothing else is seen from there."""
    found = []
    for row in rows_of(sequences, budget, most):
        assert (len(row) <= budget or len(row.keys) == 1) and 1 <= len(row.keys) <= most
        seen = tree_mask(torch.tensor([row.subtree_ends]))[0, 0]
        for key, last_token in zip(row.keys, row.last_tokens, strict=True):
            path = path_to(row, last_token)
            assert [row.positions[place] for place in path] == list(range(len(path))) and path[-1] == last_token
            for length, place in enumerate(path, 1):
                assert seen[place].nonzero().flatten().tolist() == path[:length]
            found.append((key, [row.tokens[place] for place in path]))
    assert found == list(enumerate(sequences))


@given(token_lists)
def test_sorted_sequences_become_their_tree(sequences):
    """As many tokens as there are different beginnings, where all have half of themselves in common."""
    sequences = sorted([9] * 10 + tokens for tokens in sequences)
    [row] = rows_of(sequences)
    assert len(row) == len({tuple(tokens[:length]) for tokens in sequences for length in range(1, len(tokens) + 1)})


def test_what_has_little_in_common_stands_in_different_rows():
    assert [row.keys for row in rows_of([[1, 2, 3, 4], [1, 2, 5, 6], [1, 5, 6], [7]])] == [[0, 1], [2], [3]]


def test_a_sequence_without_tokens_is_an_error():
    with pytest.raises(ValueError, match="without tokens"):
        rows_of([[1, 2], []])


def test_the_example_of_the_module():
    [row] = rows_of([[1, 2, 3, 4], [1, 2, 6], [1, 5]])
    assert row.tokens == [1, 2, 3, 4, 6, 5]
    assert row.positions == [0, 1, 2, 3, 2, 1]
    assert row.subtree_ends == [6, 5, 4, 4, 5, 6]


def test_the_mask_of_a_small_batch():
    rows = rows_of([[7, 1, 1], [7, 2], [3, 3]])
    inputs = pad_rows(rows, 0)
    assert inputs["input_ids"].tolist() == [[7, 1, 1, 2], [3, 3, 0, 0]]
    assert inputs["position_ids"].tolist() == [[0, 1, 2, 1], [0, 1, 0, 0]]
    assert inputs["lengths"].tolist() == [4, 2]
    assert inputs["last_tokens"].tolist() == [2, 3, 5]
    first, second = tree_mask(inputs["subtree_ends"])[:, 0].int().tolist()
    assert first == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]
    assert second == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    sees = flex_mask(inputs["subtree_ends"]).mask_mod
    for row, mask in enumerate((first, second)):
        places = [torch.arange(4)[:, None], torch.arange(4)]
        assert sees(torch.tensor(row), torch.tensor(0), *places).int().tolist() == mask


@given(token_lists, st.integers(1, 4))
def test_batches_hold_every_row_once_and_no_more_sequences_than_asked(sequences, batch_size):
    rows = rows_of(sequences, 9)
    batches = list(batches_by_length(rows, batch_size))
    assert sorted(row.keys for batch in batches for row in batch) == sorted(row.keys for row in rows)
    assert all(len(batch) == 1 or sum(len(row.keys) for row in batch) <= batch_size for batch in batches)
    lengths = [len(row) for batch in batches for row in batch]
    assert lengths == sorted(lengths, reverse=True)


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


# --- scores ---------------------------------------------------------------------------------------------------------

texts = st.text("SELECT 1,é\n", min_size=1, max_size=12)
asked = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=6)), min_size=1, max_size=4)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@settings(max_examples=25)
@given(questions=asked, batch_size=st.integers(1, 9), budget=st.integers(1, 150))
def test_packed_scores_equal_scores_one_by_one(scorers, architecture, questions, batch_size, budget):
    model, tokenizer = scorers[architecture]
    alone = scores_alone(model, tokenizer, questions)
    packed = score(model, tokenizer, questions, batch_size, budget)
    for one, other in zip(alone, packed, strict=True):
        assert other == pytest.approx(one, abs=1e-4)


def test_the_rewards_of_these_tests_differ(scorers):
    """Otherwise equal scores would prove nothing: the prompt, the candidate and the order of its tokens matter."""
    model, tokenizer = scorers["qwen2"]
    [[one, other, turned]] = score(model, tokenizer, [(LONG, ["SELECT 1", "SELECT 12", "SELECT 21"])])
    [[elsewhere]] = score(model, tokenizer, [("Another database.", ["SELECT 1"])])
    rewards = (one, other, turned, elsewhere)
    assert min(abs(a - b) for i, a in enumerate(rewards) for b in rewards[:i]) > 1e-2


@pytest.mark.skipif(torch.cuda.is_available(), reason="for CPUs")
def test_these_tests_compute_attention_in_blocks(scorers, monkeypatch):
    from reward import packing

    model, tokenizer = scorers["qwen2"]
    seen, plain = [], packing.sdpa_attention_forward
    monkeypatch.setattr(
        packing, "sdpa_attention_forward", lambda *args, **named: seen.append(args[2]) or plain(*args, **named)
    )
    score(model, tokenizer, [(LONG, ["SELECT 1", "SELECT " + "2, " * 20, "SELECT " + "3, " * 20])])
    assert len(seen) > 2 * model.config.num_hidden_layers
    assert len({keys.shape[2] for keys in seen}) > 2 and seen[-1].shape[2] < max(keys.shape[2] for keys in seen)


@pytest.mark.filterwarnings("ignore::UserWarning")  # that it is not compiled, which would take a minute
def test_flex_attention_gives_the_scores_of_sdpa(scorers):
    model, tokenizer = scorers["qwen2"]
    questions = [(LONG, ["SELECT 1", "SELECT " + "2, " * 20]), ("Short?", ["SELECT 5", "SELECT 6"])]
    ours = model.config._attn_implementation
    expected = scores_alone(model, tokenizer, questions)
    model.set_attn_implementation(FLEX_ATTENTION)
    with torch.compiler.set_stance("force_eager"):
        found = score(model, tokenizer, questions)
    model.set_attn_implementation(ours)
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, abs=1e-4)


def test_neither_neighbours_nor_order_change_a_score(scorers):
    model, tokenizer = scorers["qwen2"]
    queries = ["SELECT 1", "SELECT name FROM product WHERE id = 3", "SELECT 2"]
    [alone] = score(model, tokenizer, [(LONG, queries)])
    [turned] = score(model, tokenizer, [(LONG, queries[::-1])])
    others = score(model, tokenizer, [("Short?", ["SELECT 5"]), (LONG, [*queries, "x" * 300]), ("None?", [])])
    assert turned[::-1] == pytest.approx(alone, abs=1e-5)
    assert others[1][:3] == pytest.approx(alone, abs=1e-5) and others[2] == []


def test_a_model_with_a_sliding_window_is_refused(tiny_model, tmp_path):
    import json

    folder = shutil.copytree(tiny_model, tmp_path / "window")
    config = json.loads((folder / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "layer_types": None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="sliding window"):
        load_base(folder, 0, torch.float32)


# --- training -------------------------------------------------------------------------------------------------------


def preference(question: int, chosen: str, rejected: str, distances=(0, None)) -> PreferencePair:
    prompt, nodes = task_prompt(LONG + "How many?" * question), ("", "")
    return PreferencePair(prompt, chosen, rejected, question, "shop", *nodes, *distances, relation="sibling")


PAIRS = [
    preference(0, "SELECT COUNT(*) FROM product", "SELECT 1"),
    preference(0, "SELECT COUNT(*) FROM product", "SELECT COUNT(id, name) FROM p", (0, 2)),
    preference(0, "SELECT COUNT(id, name) FROM p", "SELECT 1", (2, None)),
    preference(1, "SELECT name FROM product", "SELECT *"),
    preference(2, "SELECT MAX(id) FROM product", "SELECT MIN(id) FROM product"),
    preference(2, "SELECT MAX(id) FROM product", "SELECT MAX(name) FROM product WHERE 1 = 1 AND 2 = 2"),
]


def trainer_of(base, folder, packed: bool, budget: int = 400, margin_scale: float = 0.0, **arguments):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import RewardConfig, RewardTrainer

    from reward.trainer import PackedTrainer

    tokenizer = load_tokenizer(base)
    questions = tokenize(group_by_prompt(PAIRS), tokenizer, 10_000)
    rows = question_rows(questions, margin_scale, ["sibling"]) if packed else pair_rows(questions, margin_scale)
    config = {"per_device_train_batch_size": 10, "gradient_accumulation_steps": 1} | arguments
    model = load_base(base, tokenizer.pad_token_id, torch.float32)
    if not packed:
        model.set_attn_implementation("sdpa")  # TRL's way owes nothing to ours
    return (PackedTrainer if packed else RewardTrainer)(
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
@pytest.mark.parametrize("margin_scale", [0.0, 0.7])
def test_loss_and_gradients_are_those_of_trl(bases, tmp_path, architecture, checkpointing, margin_scale):
    ours, theirs = (
        loss_and_gradients(
            trainer_of(
                bases[architecture],
                tmp_path,
                packed,
                margin_scale=margin_scale,
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
