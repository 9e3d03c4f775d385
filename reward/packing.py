"""One prompt, many candidates, one forward pass.

A question's candidates repeat its prompt, which is most of their tokens. Packed, the prompt stands once and the
candidates behind it, each at the positions it would have alone, each seeing the prompt and itself only:

    tokens     p p p p a a a b b        positions  0 1 2 3 4 5 6 4 5        segments  0 0 0 0 1 1 1 2 2

So the score at a candidate's last token is the one it has alone, to float tolerance. Exact for models that know order
by position ids and attend to everything before (`reward.model.load_base` refuses those with sliding windows), with an
attention implementation that takes a boolean mask (sdpa). Attention is computed densely: its cost grows with the square
of a row's length, so long rows are split, repeating the prompt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

TOKEN_BUDGET = 8192  # tokens of a row
PADDING = -1  # segment of padding


def shared_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with; at least one token of each is left over."""
    shortest = min(map(len, sequences))
    for place, tokens in enumerate(zip(*sequences, strict=False)):
        if place == shortest - 1 or len(set(tokens)) > 1:
            return place
    raise ValueError("a sequence without tokens has no score")


@dataclass(frozen=True)
class Row:
    """One packed sequence: what its candidates share, then each candidate's own tokens."""

    prefix: Sequence[int]
    tails: list[Sequence[int]]

    def __len__(self) -> int:
        return len(self.prefix) + sum(map(len, self.tails))

    @property
    def tokens(self) -> list[int]:
        return [*self.prefix, *(token for tail in self.tails for token in tail)]

    @property
    def positions(self) -> list[int]:
        """Where each token stands in its own candidate."""
        shared = len(self.prefix)
        return [*range(shared), *(shared + place for tail in self.tails for place in range(len(tail)))]

    @property
    def segments(self) -> list[int]:
        """0 for the prefix, then 1, 2, … for the candidates."""
        return [0] * len(self.prefix) + [number for number, tail in enumerate(self.tails, 1) for _ in tail]

    @property
    def ends(self) -> list[int]:
        """The place of each candidate's last token."""
        return [len(self.prefix) + length - 1 for length in accumulate(map(len, self.tails))]


def pack(prefix: Sequence[int], tails: Sequence[Sequence[int]], token_budget: int) -> list[Row]:
    """Rows of a question that hold its candidates in their order; each begins with the prefix.

    `tails` are the candidates' own tokens. A row has at most `token_budget` tokens, or a single candidate.
    """
    rows: list[Row] = []
    for tail in tails:
        if not rows or len(rows[-1]) + len(tail) > token_budget:
            rows.append(Row(prefix, []))
        rows[-1].tails.append(tail)
    return rows


def pad_rows(rows: Sequence[Row], pad_token_id: int) -> dict[str, Tensor]:
    """Tensors of R rows padded on the right to L tokens.

    input_ids, position_ids, segments: [R, L]. ends: [N], the places of the last tokens of all N candidates, row after
    row, in the flattened [R * L].
    """
    length = max(map(len, rows))

    def padded(name: str, value: int) -> Tensor:
        return torch.tensor([getattr(row, name) + [value] * (length - len(row)) for row in rows])

    return {
        "input_ids": padded("tokens", pad_token_id),
        "position_ids": padded("positions", 0),
        "segments": padded("segments", PADDING),
        "ends": torch.tensor([number * length + end for number, row in enumerate(rows) for end in row.ends]),
    }


def block_mask(segments: Tensor) -> Tensor:
    """Who may look at whom: [R, L] segments -> [R, 1, L, L] booleans, true where query (row) sees key (column).

    A token sees what stands before it in its own segment and in the prompt. Padding sees itself, because a softmax over
    nothing is not a number; nobody sees padding.
    """
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    return (causal & ((query == key) | (key == 0)))[:, None]


def score_head(model: nn.Module) -> nn.Module:
    """The score head within whatever wraps the model (PEFT, DistributedDataParallel, …)."""
    return next(module for name, module in model.named_modules() if name.split(".")[-1] == "score")


def packed_scores(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Scores [N] in float32 of all candidates of `pad_rows`' tensors, with one call of a …ForSequenceClassification.

    Such a model scores every token and returns one score of each row; a hook on the head catches the others. The call
    goes through the model itself, so what wraps it (gradient synchronisation, checkpointing, LoRA) works as always.
    """
    caught: list[Tensor] = []
    hook = score_head(model).register_forward_hook(lambda head, arguments, scores: caught.append(scores))
    try:
        model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            attention_mask=block_mask(inputs["segments"]),
            use_cache=False,
        )
    finally:
        hook.remove()
    return caught[0].flatten()[inputs["ends"]].float()


def batches_by_length(rows: Sequence[Row], batch_size: int) -> Iterator[list[int]]:
    """Numbers of rows of similar length, the longest first, with at most `batch_size` candidates together.

    A row with more candidates is a batch of its own.
    """
    batch: list[int] = []
    candidates = 0
    for number in sorted(range(len(rows)), key=lambda number: -len(rows[number])):
        if batch and candidates + len(rows[number].tails) > batch_size:
            yield batch
            batch, candidates = [], 0
        batch.append(number)
        candidates += len(rows[number].tails)
    if batch:
        yield batch
