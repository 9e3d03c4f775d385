"""Many candidates of many questions, one forward pass: what they begin with alike is computed once.

A question's candidates repeat its prompt, the questions of a database its schema, and these are most of their tokens.
Packed, sequences are a tree of tokens (a trie), written down branch after branch, each token at the position that it
has in its own sequence, seeing itself and what stands above it in the tree:

    one two three four        tokens         one two three four SIX five
    one two SIX               positions      0   1    2    3    2    1
    one five                  subtree ends   6   5    4    4    5    6

The subtree end of a token is the index behind the last token below it: `key` is above `query` when
key <= query < subtree_ends[key]. So the score at a sequence's last token is the one that it has alone, to float
tolerance. Exact for models that know order by position ids and attend to everything before (`reward.model.load_base`
refuses those with sliding windows), with an attention implementation that takes a boolean mask: on a GPU sdpa, which
computes what the mask hides too, at a cost that grows with the square of a row's length, or PyTorch's FlexAttention
(Dong et al., arXiv:2412.05496), which skips blocks of tokens that see nothing of each other; on a CPU
`block_attention`, which skips most of them. Long rows are split, and sequences that have little in common are in
different rows.

With a mask, sdpa runs its memory-efficient kernel, on some cards cuDNN's; FlashAttention takes none. The mask is one
byte a pair of tokens, 64 MiB for a row of 8,192, and each layer makes a copy of it in the dtype of the queries.
"""

import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import ModelOutput

TOKEN_BUDGET = 8192  # tokens of a row
FLEX_ATTENTION = "flex_attention"  # transformers' name
BLOCK_ATTENTION = "sdpa_in_blocks"  # the name of `block_attention` for transformers
BLOCK = 256  # queries of `block_attention` that share their keys
FLEX_BLOCK = 128  # tokens of a block of FlexAttention


@dataclass
class PackedRow:
    """One packed tree. Each of its S sequences has a key, and the index of its last token in `last_tokens`."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    keys: list[Hashable] = field(default_factory=list)
    last_tokens: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def path(self, index: int, most: int) -> list[int]:
        """Indices of a token and of those above it, from the top, at most so many of the last."""
        found = [index]
        for above in range(index - 1, -1, -1):
            if len(found) == most:
                break
            if self.positions[above] == self.positions[found[-1]] - 1:
                found.append(above)
        return found[::-1]

    @property
    def subtree_ends(self) -> list[int]:
        """For each token the index behind the last token below it."""
        ends = [len(self)] * len(self)
        path: list[int] = []  # from the root to the token before
        for index, position in enumerate(self.positions):
            for left in path[position:]:
                ends[left] = index
            path[position:] = [index]
        return ends


def pack(
    sequences: Iterable[tuple[Hashable, Sequence[int]]], token_budget: int, most: int | None = None
) -> list[PackedRow]:
    """Rows of the sequences, (key, token ids) each, in the order given.

    A sequence joins the row before it when it finds at least half of its tokens at the end of that row's last sequence
    (so sorted sequences are packed best), and the row then has at most `token_budget` tokens and `most` sequences.
    Raises ValueError for a sequence without tokens.
    """
    rows: list[PackedRow] = []
    last: Sequence[int] = []
    path: list[int] = []  # indices of the last sequence's tokens
    for key, ids in sequences:
        if not ids:
            raise ValueError("a sequence without tokens has no score")
        shared = len(os.path.commonprefix([last, ids]))
        fits = rows and len(rows[-1]) + len(ids) - shared <= token_budget and len(rows[-1].keys) != most
        if not fits or 2 * shared < len(ids):
            rows.append(PackedRow())
            shared = 0
        row = rows[-1]
        path[shared:] = range(len(row), len(row) + len(ids) - shared)
        row.tokens += ids[shared:]
        row.positions += range(shared, len(ids))
        row.keys.append(key)
        row.last_tokens.append(path[-1])
        last = ids
    return rows


def pad_rows(rows: Sequence[PackedRow], pad_token_id: int) -> dict[str, Tensor]:
    """Tensors of R rows padded on the right to L tokens.

    input_ids, position_ids, subtree_ends: [R, L]. lengths: [R], without padding. last_tokens: [N], the indices of the
    last tokens of all N sequences, row after row, in the flattened [R * L].
    """
    length = max(map(len, rows))
    alone = range(1, length + 1)  # padding sees itself, as a softmax over nothing is no number
    return {
        "input_ids": torch.tensor([row.tokens + [pad_token_id] * (length - len(row)) for row in rows]),
        "position_ids": torch.tensor([row.positions + [0] * (length - len(row)) for row in rows]),
        "subtree_ends": torch.tensor([[*row.subtree_ends, *alone[len(row) :]] for row in rows]),
        "lengths": torch.tensor([len(row) for row in rows]),
        "last_tokens": torch.tensor([i * length + last for i, row in enumerate(rows) for last in row.last_tokens]),
    }


def tree_mask(subtree_ends: Tensor) -> Tensor:
    """Who may look at whom: [R, L] subtree ends -> [R, 1, L, L] booleans, true where query (row) sees key (column)."""
    indices = torch.arange(subtree_ends.shape[1], device=subtree_ends.device)
    return ((indices[:, None] >= indices) & (indices[:, None] < subtree_ends[:, None, :]))[:, None]


def flex_mask(subtree_ends: Tensor) -> BlockMask:
    """`tree_mask` in the form that FlexAttention takes. While it is made, it takes about as much memory."""

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query < subtree_ends[row, key])

    rows, length = subtree_ends.shape
    return create_block_mask(sees, rows, None, length, length, device=subtree_ends.device, BLOCK_SIZE=FLEX_BLOCK)


def pad_to_blocks(inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids, position_ids and subtree_ends of `pad_rows` in whole blocks of FlexAttention, at least two.

    Dynamo compiles FlexAttention anew for one row and for several, for one block and for several, with gradients and
    without; after 8 times it gives up, and PyTorch computes all scores of all heads instead, which few GPUs have the
    memory for. Rows that are never one block leave 6 at most.
    """
    ends = inputs["subtree_ends"]
    rows, length = ends.shape
    whole = max(-(-length // FLEX_BLOCK), 2) * FLEX_BLOCK
    added = (0, whole - length)
    own = torch.arange(length + 1, whole + 1, device=ends.device).expand(rows, -1)  # padding sees itself
    return (
        nn.functional.pad(inputs["input_ids"], added),  # which token is there changes nothing
        nn.functional.pad(inputs["position_ids"], added),
        torch.cat([ends, own], dim=1),
    )


def block_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings):
    """Attention for transformers: queries in blocks, each with the keys only that one of the block sees.

    query, key, value: [R, heads, L, size], mask: [R, 1, L, L] booleans; the result is [R, L, heads, size], and None in
    the place of weights. Anything else goes to transformers' own sdpa.
    """
    if mask is None or mask.dtype != torch.bool or mask.shape[-2] != mask.shape[-1]:
        return sdpa_attention_forward(module, query, key, value, mask, **settings)
    parts = []
    for start in range(0, mask.shape[-2], BLOCK):
        block = slice(start, start + BLOCK)
        seen = mask[:, :, block].any(dim=(0, 1, 2)).nonzero().flatten()
        part = mask[:, :, block, seen]
        parts.append(
            sdpa_attention_forward(module, query[:, :, block], key[:, :, seen], value[:, :, seen], part, **settings)[0]
        )
    return torch.cat(parts, dim=1), None


AttentionInterface.register(BLOCK_ATTENTION, block_attention)
AttentionMaskInterface.register(BLOCK_ATTENTION, sdpa_mask)


def head_of(model: nn.Module, name: str) -> nn.Module:
    """The head of that name within whatever wraps the model (PEFT, DistributedDataParallel, …)."""
    return next(module for path, module in model.named_modules() if path.split(".")[-1] == name)


def attention_of(model: nn.Module) -> str:
    """The name of the attention implementation within whatever wraps the model."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel)).config._attn_implementation


def packed_scores(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Scores [N] in float32 of all sequences of `pad_rows`' tensors, with one call of a …ForSequenceClassification.

    Such a model scores every token and returns one score of each row; a hook on the head catches the others. The call
    goes through the model itself, so what wraps it (gradient synchronisation, checkpointing, LoRA) works as always.
    """
    caught: list[Tensor] = []
    hook = head_of(model, "score").register_forward_hook(lambda head, arguments, scores: caught.append(scores))
    _call(model, inputs, hook)
    length = inputs["input_ids"].shape[1]
    return caught[0][:, :length].flatten()[inputs["last_tokens"]].float()


def packed_logits(model: nn.Module, inputs: dict[str, Tensor], places: Tensor) -> Tensor:
    """Logits [K, V] in float32 at K places among the [R * L] tokens of `pad_rows`, with one call of a …ForCausalLM.

    What is learned stands at few places, so a hook lets the head, the largest layer by far, read these only.
    """
    length = inputs["input_ids"].shape[1]
    head = head_of(model, "lm_head")
    hook = head.register_forward_pre_hook(lambda head, hidden: (hidden[0][:, :length].flatten(0, 1)[places],))
    return _call(model, inputs, hook).logits.float()


def _call(model: nn.Module, inputs: dict[str, Tensor], hook: RemovableHandle) -> ModelOutput:
    """What a model makes of `pad_rows`' tensors; the hook is for this call only."""
    if attention_of(model) == FLEX_ATTENTION:
        input_ids, position_ids, subtree_ends = pad_to_blocks(inputs)
        mask = flex_mask(subtree_ends)
    else:
        input_ids, position_ids, mask = inputs["input_ids"], inputs["position_ids"], tree_mask(inputs["subtree_ends"])
    with hook:
        return model(input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False)


def batches_by_length(rows: Iterable[PackedRow], batch_size: int) -> Iterator[list[PackedRow]]:
    """Rows of similar length, the longest first, with at most `batch_size` sequences together.

    A row with more is a batch of its own.
    """
    batch: list[PackedRow] = []
    for row in sorted(rows, key=len, reverse=True):
        if batch and sum(len(other.keys) for other in [*batch, row]) > batch_size:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
