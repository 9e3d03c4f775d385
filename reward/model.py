"""The reward model: a base model with LoRA and a scalar score head in float32. Load, check, score.

    from reward.model import load_reward_model, score

    model, tokenizer = load_reward_model("Qwen2.5-Coder-1.5B-Instruct", "qwen-reward-model-sql-train")
    [rewards] = score(model, tokenizer, [(prompt, answers)])

where an answer is a query with what executing it said, see `common.preference.answer`.

Not here: which tokens a candidate is (`reward.tokens`), how candidates share a forward pass (`reward.packing`).
"""

import math
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from common.files import InputError, read_json
from common.model_folder import architecture, fast_dtype, model_fingerprint, tensor_shapes
from common.preference import Prompt
from reward.low_rank import make_lean
from reward.packing import (
    BLOCK_ATTENTION,
    FLEX_ATTENTION,
    TOKEN_BUDGET,
    batches_by_length,
    pack,
    packed_scores,
    pad_rows,
)
from reward.tokens import encode, load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

PromptAndQueries = tuple[Prompt | str, Sequence[str]]  # a prompt (a text is one turn of the user) and answers to it
ADAPTER_WEIGHTS = "adapter_model.safetensors"
HEAD_SEED = 0
RELOAD_TOLERANCE = 1e-4  # between rewards before saving and after loading


class Float32Head(nn.Linear):
    """A linear head that computes in float32 whatever the base model's dtype: [..., hidden] -> [..., 1].

    bfloat16 scores are off by a good part of their range, which reorders close candidates.
    """

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight)


def fast_device() -> torch.device:
    """Where models are computed: on this process's GPU, or without one on the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def base_dtype(name: str = "auto") -> torch.dtype:
    """The dtype of the frozen base by name; auto: bfloat16 where this machine computes it, float32 otherwise."""
    return getattr(torch, fast_dtype() if name == "auto" else name)


def load_base(
    base: str | os.PathLike, pad_token_id: int, dtype: torch.dtype, flex_attention: bool = False
) -> "PreTrainedModel":
    """The base model as …ForSequenceClassification with one label and an untrained float32 head, always the same.

    FlexAttention needs a GPU to train. Raises InputError for a model whose candidates cannot be packed.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn that the head is new, which is the point
    model = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=1,
        dtype=dtype,
        attn_implementation=FLEX_ATTENTION if flex_attention else packed_attention(),
    )
    logging.set_verbosity(verbosity)
    check_attention(model.config, base)
    model.config.pad_token_id = pad_token_id
    head = Float32Head(model.config.hidden_size, 1, bias=False)
    nn.init.normal_(head.weight, std=model.config.initializer_range, generator=torch.Generator().manual_seed(HEAD_SEED))
    model.score = head
    return model


def load_generator(base: str | os.PathLike, dtype: torch.dtype) -> "PreTrainedModel":
    """The model as …ForCausalLM for packed rows. Raises InputError for one whose sequences cannot be packed."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation=packed_attention())
    check_attention(model.config, base)
    return model


def packed_attention() -> str:
    """The attention implementation for packed rows on this machine, without FlexAttention."""
    return "sdpa" if fast_device().type == "cuda" else BLOCK_ATTENTION


def check_attention(config: "PretrainedConfig", base: str | os.PathLike) -> None:
    """Raise InputError unless every layer attends to all tokens before, as packing assumes."""
    kinds = set(getattr(config, "layer_types", None) or [])  # not every architecture names them
    windowed = getattr(config, "sliding_window", None) is not None and not kinds
    if windowed or kinds - {"full_attention"}:
        raise InputError(
            f"{base}: attends in a sliding window or otherwise than to all tokens before; use another base"
        )


def check_adapter(adapter: str | os.PathLike, base: str | os.PathLike) -> None:
    """Raise InputError unless `adapter` is a reward adapter of this base model; nothing is loaded."""
    folder = Path(adapter)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such adapter folder; train one with `python train.py` (step 5)")
    for name in ("adapter_config.json", ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing; is this the output folder of train.py?")
    head, hidden = _head_shape(folder), architecture(base)["hidden_size"]
    if head != [1, hidden]:
        raise InputError(
            f"{folder}: its score head reads {head[-1]} numbers, {base} gives {hidden}: another base model"
        )
    manifest = read_json(folder / "manifest.json", dict) if (folder / "manifest.json").is_file() else {}
    if manifest.get("model_fingerprint", model_fingerprint(base)) != model_fingerprint(base):
        raise InputError(f"{folder}: was trained on {manifest.get('model')}, whose weights are not those of {base}")


def _head_shape(adapter: Path) -> list[int]:
    """The shape of an adapter's score head. Raises InputError when it holds none."""
    path = adapter / ADAPTER_WEIGHTS
    try:
        shapes = [shape for name, shape in tensor_shapes(path).items() if "score" in name.split(".")]
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: broken ({error}); train again") from None
    if not shapes:
        raise InputError(f"{adapter}: holds no score head; it was saved without modules_to_save=['score']")
    return shapes[0]


def check_saved(
    model: "PeftModel",
    adapter: str | os.PathLike,
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[PromptAndQueries],
) -> None:
    """Raise InputError unless the saved adapter scores some candidates as the model in memory does.

    The adapter is loaded beside the one in memory, on the same base model, which so keeps its precision.
    """
    model.eval()
    before = score(model, tokenizer, questions)
    [active] = model.active_adapters
    model.load_adapter(adapter, "saved")
    model.set_adapter("saved")
    after = score(model, tokenizer, questions)
    model.set_adapter(active)
    model.delete_adapter("saved")
    rewards = zip(chain.from_iterable(before), chain.from_iterable(after), strict=True)
    error = max(abs(one - other) for one, other in rewards)
    if not error <= RELOAD_TOLERANCE:
        raise InputError(f"{adapter}: the saved adapter's rewards differ by {error:.2g} from the trained model's")


def load_reward_model(
    base: str | os.PathLike,
    adapter: str | os.PathLike | None,
    dtype: str = "auto",
    device: torch.device | str | None = None,
) -> tuple["PreTrainedModel | PeftModel", "PreTrainedTokenizerBase"]:
    """The base with the adapter's LoRA and score head (None: untrained), in eval mode, and the tokenizer.

    `dtype` is that of the base, by the names of `base_dtype`; `device` is the GPU if there is one, else the CPU.
    """
    tokenizer = load_tokenizer(base)
    model = load_base(base, tokenizer.pad_token_id, base_dtype(dtype))
    if adapter is not None:
        from peft import PeftModel

        model = make_lean(PeftModel.from_pretrained(model, adapter))
    return model.to(device or fast_device()).eval(), tokenizer


@torch.no_grad()
def score(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[PromptAndQueries],
    batch_size: int = 64,
    token_budget: int = TOKEN_BUDGET,
    progress: str = "",
) -> list[list[float]]:
    """Rewards in float32 of the candidates of each (prompt, candidates), in the order given.

    What candidates begin with alike is computed once for those that stand behind it, up to `batch_size` candidates at a
    time, in rows of `token_budget` tokens. `progress` names a progress bar. The model must be in eval mode.
    """
    from tqdm import tqdm

    rows = pack(_sequences(tokenizer, questions), token_budget, batch_size)
    rewards = [[math.nan] * len(queries) for _, queries in questions]
    with tqdm(total=sum(len(row.keys) for row in rows), desc=progress, unit="candidate", disable=not progress) as bar:
        for batch in batches_by_length(rows, batch_size):
            inputs = pad_rows(batch, tokenizer.pad_token_id)
            scores = packed_scores(model, {name: tensor.to(model.device) for name, tensor in inputs.items()})
            keys = chain.from_iterable(row.keys for row in batch)
            for (question, candidate), reward in zip(keys, scores.tolist(), strict=True):
                rewards[question][candidate] = reward
            bar.update(len(scores))
    return rewards


def _sequences(
    tokenizer: "PreTrainedTokenizerBase", questions: Sequence[PromptAndQueries]
) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """((question, candidate), token ids), ordered so that what begins alike stands together."""
    for number in sorted(range(len(questions)), key=lambda number: str(questions[number][0])):
        prompt, queries = questions[number]
        if queries:
            encoded = encode(tokenizer, prompt, queries)
            for candidate in sorted(range(len(queries)), key=encoded.__getitem__):
                yield (number, candidate), encoded[candidate]
