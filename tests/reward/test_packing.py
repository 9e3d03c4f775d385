"""One pass over many candidates gives the scores of one pass each."""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import InputError
from reward.model import load_base, load_reward_model, score
from reward.packing import FLEX_ATTENTION, PackedRow, batches_by_length, flex_mask, pack, pad_rows, tree_mask
from reward.tokens import encode
from tests.reward.conftest import LONG

pytestmark = pytest.mark.usefixtures("small_blocks")


def path_to(row: PackedRow, last_token: int) -> list[int]:
    """Indices of the tokens of the sequence that ends there, from its first on."""
    indices: list[int] = []
    position = row.positions[last_token]
    for index in range(last_token, -1, -1):
        if row.positions[index] == position:
            indices.append(index)
            position -= 1
    return indices[::-1]


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
            assert [row.path(last_token, most) for most in range(1, len(path) + 2)] == [
                path[-most:] for most in range(1, len(path) + 2)
            ]
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
    folder = shutil.copytree(tiny_model, tmp_path / "window")
    config = json.loads((folder / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "layer_types": None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="sliding window"):
        load_base(folder, 0, torch.float32)
