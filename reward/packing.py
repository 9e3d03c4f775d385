"""Many candidates of many questions, one forward pass: what they begin with alike is computed once.

A question's candidates repeat its prompt, the questions of a database its schema, and these are most of their tokens.
Packed, sequences are a tree of tokens (a trie), written down branch after branch, each token at the position that it
has in its own sequence, seeing itself and what stands above it in the tree:

    one two three four        tokens     one two three four SIX five
    one two SIX               positions   0   1    2    3    2    1
    one five                  stops       6   5    4    4    5    6

`stops` is where the branch below a token ends: `key` is above `query` when key <= query < stops[key]. So the score at a
sequence's last token is the one it has alone, to float tolerance. Exact for models that know order by position ids and
attend to everything before (`reward.model.load_base` refuses those with sliding windows), with an attention
implementation that takes a boolean mask. On a GPU that is sdpa, which computes what the mask hides too, at a cost that
grows with the square of a row's length, or PyTorch's FlexAttention (Dong et al., arXiv:2412.05496), which skips blocks
of tokens that see nothing of each other; on a CPU it is `block_attention`, which skips most of them. Long rows are
split, and sequences that have little in common stand in different rows.

With a mask, sdpa runs its memory-efficient kernel, on some cards cuDNN's; FlashAttention takes none. The mask is one
byte a pair of tokens, 64 MiB for a row of 8,192, and each layer makes a copy of it in the dtype of the queries.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

TOKEN_BUDGET = 8192  # tokens of a row
FLEX_ATTENTION = "flex_attention"  # transformers' name
BLOCK_ATTENTION = "sdpa_in_blocks"  # the name of `block_attention` for transformers
BLOCK = 256  # queries of `block_attention` that share their keys
FLEX_BLOCK = 128  # tokens of a block of FlexAttention


@dataclass
class Row:
    """One packed tree. Every sequence in it has a key, and the place of its last token in `ends`."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    keys: list[Hashable] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def path(self, end: int) -> list[int]:
        """Places of the tokens of the sequence that ends there, from its first on."""
        places: list[int] = []
        position = self.positions[end]
        for place in range(end, -1, -1):
            if self.positions[place] == position:
                places.append(place)
                position -= 1
        return places[::-1]

    @property
    def stops(self) -> list[int]:
        """For each token the place after the last that is below it."""
        stops = [len(self)] * len(self)
        above: list[int] = []  # the path to the token before
        for place, position in enumerate(self.positions):
            for closed in above[position:]:
                stops[closed] = place
            above[position:] = [place]
        return stops


def pack(sequences: Iterable[tuple[Hashable, Sequence[int]]], token_budget: int, most: int | None = None) -> list[Row]:
    """Rows of the sequences, (key, token ids) each, in the order given.

    A sequence joins the row before it when it finds at least half of its tokens at the end of that row's last sequence
    (so sorted sequences are packed best), and the row then has at most `token_budget` tokens and `most` sequences.
    Raises ValueError for a sequence without tokens.
    """
    rows: list[Row] = []
    last: Sequence[int] = ()
    path: list[int] = []  # places of the last sequence's tokens
    for key, ids in sequences:
        if not ids:
            raise ValueError("a sequence without tokens has no score")
        shared = _shared(last, ids)
        fits = rows and len(rows[-1]) + len(ids) - shared <= token_budget and len(rows[-1].keys) != most
        if not fits or 2 * shared < len(ids):
            rows.append(Row())
            shared = 0
        row = rows[-1]
        path[shared:] = range(len(row), len(row) + len(ids) - shared)
        row.tokens += ids[shared:]
        row.positions += range(shared, len(ids))
        row.keys.append(key)
        row.ends.append(path[-1])
        last = ids
    return rows


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def pad_rows(rows: Sequence[Row], pad_token_id: int) -> dict[str, Tensor]:
    """Tensors of R rows padded on the right to L tokens.

    input_ids, position_ids, stops: [R, L]. lengths: [R], without padding. ends: [N], the places of the last tokens of
    all N sequences, row after row, in the flattened [R * L].
    """
    length = max(map(len, rows))

    def padded(name: str, padding: Sequence[int]) -> Tensor:
        return torch.tensor([[*getattr(row, name), *padding[len(row) :]] for row in rows])

    return {
        "input_ids": padded("tokens", [pad_token_id] * length),
        "position_ids": padded("positions", [0] * length),
        "stops": padded("stops", range(1, length + 1)),  # padding sees itself, as a softmax over nothing is no number
        "lengths": torch.tensor([len(row) for row in rows]),
        "ends": torch.tensor([number * length + end for number, row in enumerate(rows) for end in row.ends]),
    }


def tree_mask(stops: Tensor) -> Tensor:
    """Who may look at whom: [R, L] stops -> [R, 1, L, L] booleans, true where query (row) sees key (column)."""
    places = torch.arange(stops.shape[1], device=stops.device)
    return ((places[:, None] >= places) & (places[:, None] < stops[:, None, :]))[:, None]


def flex_mask(stops: Tensor) -> BlockMask:
    """`tree_mask` in the form that FlexAttention takes. While it is made, it takes about as much memory."""

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query < stops[row, key])

    rows, length = stops.shape
    return create_block_mask(sees, rows, None, length, length, device=stops.device, BLOCK_SIZE=FLEX_BLOCK)


def whole_blocks(inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids, position_ids and stops of `pad_rows`, padded further to whole blocks of FlexAttention, at least two.

    Dynamo compiles FlexAttention anew for one row and for several, for one block and for several, with gradients and
    without; after 8 times it gives up, and PyTorch computes all scores of all heads instead, which few GPUs have the
    memory for. Rows that are never one block leave 6 at most.
    """
    rows, length = inputs["stops"].shape
    whole = max(-(-length // FLEX_BLOCK), 2) * FLEX_BLOCK
    added = (0, whole - length)
    own = torch.arange(length + 1, whole + 1, device=inputs["stops"].device).expand(rows, -1)  # padding sees itself
    return (
        nn.functional.pad(inputs["input_ids"], added),  # which token stands there changes nothing
        nn.functional.pad(inputs["position_ids"], added),
        torch.cat([inputs["stops"], own], dim=1),
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


def score_head(model: nn.Module) -> nn.Module:
    """The score head within whatever wraps the model (PEFT, DistributedDataParallel, …)."""
    return next(module for name, module in model.named_modules() if name.split(".")[-1] == "score")


def attention_of(model: nn.Module) -> str:
    """The name of the attention implementation within whatever wraps the model."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel)).config._attn_implementation


def packed_scores(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Scores [N] in float32 of all sequences of `pad_rows`' tensors, with one call of a …ForSequenceClassification.

    Such a model scores every token and returns one score of each row; a hook on the head catches the others. The call
    goes through the model itself, so what wraps it (gradient synchronisation, checkpointing, LoRA) works as always.
    """
    if attention_of(model) == FLEX_ATTENTION:
        input_ids, position_ids, stops = whole_blocks(inputs)
        mask = flex_mask(stops)
    else:
        input_ids, position_ids, mask = inputs["input_ids"], inputs["position_ids"], tree_mask(inputs["stops"])
    caught: list[Tensor] = []
    hook = score_head(model).register_forward_hook(lambda head, arguments, scores: caught.append(scores))
    try:
        model(input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False)
    finally:
        hook.remove()
    length = inputs["input_ids"].shape[1]
    return caught[0][:, :length].flatten()[inputs["ends"]].float()


def batches_by_length(rows: Sequence[Row], batch_size: int) -> Iterator[list[int]]:
    """Numbers of rows of similar length, the longest first, with at most `batch_size` sequences together.

    A row with more is a batch of its own.
    """
    batch: list[int] = []
    sequences = 0
    for number in sorted(range(len(rows)), key=lambda number: -len(rows[number])):
        if batch and sequences + len(rows[number].keys) > batch_size:
            yield batch
            batch, sequences = [], 0
        batch.append(number)
        sequences += len(rows[number].keys)
    if batch:
        yield batch
