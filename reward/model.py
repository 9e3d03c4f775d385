"""The reward model: a base model with LoRA and a scalar score head in float32. Load, check, score.

    from reward.model import load_reward_model, score

    model, tokenizer = load_reward_model("Qwen2.5-Coder-1.5B-Instruct", "qwen-reward-model-sql-train")
    [rewards] = score(model, tokenizer, [(prompt, ["SELECT 1", "SELECT 2"])])

User = the task prompt, assistant = the bare SQL, through the model's own chat template; the score is read at the last
token.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from common.files import InputError, read_json
from common.model_folder import architecture, fast_dtype, model_fingerprint, tensor_shapes
from reward.data import Prompt
from reward.packing import (
    BLOCK_ATTENTION,
    FLEX_ATTENTION,
    TOKEN_BUDGET,
    batches_by_length,
    pack,
    packed_scores,
    pad_rows,
)

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


def device() -> torch.device:
    """Where models are computed: on this process's GPU, or without one on the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def base_dtype(name: str = "auto") -> torch.dtype:
    """The dtype of the frozen base by name; auto: bfloat16 where this machine computes it, float32 otherwise."""
    return getattr(torch, fast_dtype() if name == "auto" else name)


def load_tokenizer(base: str | os.PathLike):
    """The base model's tokenizer with a padding token of its own.

    Transformers reads the score at the last token that is not padding, so padding must differ from the end token.
    Raises InputError when the tokenizer has no chat template or nothing to pad with.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    if not tokenizer.chat_template:
        raise InputError(f"{base}: its tokenizer has no chat template; use an Instruct model")
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        spare = [token for token in tokenizer.all_special_tokens if token != tokenizer.eos_token]
        if not spare:
            raise InputError(f"{base}: its tokenizer has no token to pad with besides the end token")
        tokenizer.pad_token = tokenizer.unk_token or spare[-1]
    return tokenizer


def encode(tokenizer, prompt: Prompt | str, sql: str) -> list[int]:
    """Token ids of one candidate, the same that TRL makes of a conversational pair; a text is one turn of the user."""
    [sequence] = encode_candidates(tokenizer, prompt, [sql])
    return sequence


def encode_candidates(tokenizer, prompt: Prompt | str, queries: Sequence[str]) -> list[list[int]]:
    """Token ids of each candidate of one prompt, encoded whole.

    Raises InputError when the chat template refuses the conversation.
    """
    from jinja2 import TemplateError

    turns = [("user", prompt)] if isinstance(prompt, str) else prompt
    messages = [{"role": role, "content": content} for role, content in turns]
    conversations = [[*messages, {"role": "assistant", "content": sql}] for sql in queries]
    try:
        return tokenizer.apply_chat_template(conversations, return_dict=False)
    except TemplateError as error:
        raise InputError(
            f"the chat template refuses a prompt with the roles {[role for role, _ in turns]}: {error}"
        ) from None


def load_base(base: str | os.PathLike, pad_token_id: int, dtype: torch.dtype, flex_attention: bool = False):
    """The base model as …ForSequenceClassification with one label and an untrained float32 head, always the same.

    FlexAttention needs a GPU to train. Raises InputError for a model whose candidates cannot be packed.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    own = "sdpa" if device().type == "cuda" else BLOCK_ATTENTION
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn that the head is new, which is the point
    model = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=1,
        dtype=dtype,
        attn_implementation=FLEX_ATTENTION if flex_attention else own,
    )
    logging.set_verbosity(verbosity)
    check_attention(model.config, base)
    model.config.pad_token_id = pad_token_id
    head = Float32Head(model.config.hidden_size, 1, bias=False)
    nn.init.normal_(head.weight, std=model.config.initializer_range, generator=torch.Generator().manual_seed(HEAD_SEED))
    model.score = head
    return model


def check_attention(config, base: str | os.PathLike) -> None:
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
    try:
        heads = [shape for name, shape in tensor_shapes(folder / ADAPTER_WEIGHTS).items() if "score" in name.split(".")]
    except (ValueError, KeyError) as error:
        raise InputError(f"{folder / ADAPTER_WEIGHTS}: broken ({error}); train again") from None
    if not heads:
        raise InputError(f"{folder}: holds no score head; it was saved without modules_to_save=['score']")
    hidden = architecture(base)["hidden_size"]
    if heads[0] != [1, hidden]:
        raise InputError(
            f"{folder}: its score head reads {heads[0][-1]} numbers, {base} gives {hidden}: another base model"
        )
    manifest = folder / "manifest.json"
    if manifest.is_file():
        trained_on = read_json(manifest, dict)
        if trained_on.get("model_fingerprint", model_fingerprint(base)) != model_fingerprint(base):
            raise InputError(
                f"{folder}: was trained on {trained_on.get('model')}, whose weights are not those of {base}"
            )


def check_saved(
    model, adapter: str | os.PathLike, tokenizer, questions: Sequence[tuple[Prompt, Sequence[str]]]
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
    error = max(
        abs(one - other)
        for ones, others in zip(before, after, strict=True)
        for one, other in zip(ones, others, strict=True)
    )
    if not error <= RELOAD_TOLERANCE:
        raise InputError(
            f"{adapter}: the saved adapter's rewards differ by {error:.2g} from those of the trained model"
        )


def load_reward_model(base: str | os.PathLike, adapter: str | os.PathLike | None, dtype: str = "auto"):
    """(model, tokenizer): the base with the adapter's LoRA and score head (None: untrained), ready to score.

    In eval mode, on the GPU if there is one; `dtype` is that of the base, by the names of `base_dtype`.
    """
    tokenizer = load_tokenizer(base)
    model = load_base(base, tokenizer.pad_token_id, base_dtype(dtype))
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.to(device()).eval(), tokenizer


@torch.no_grad()
def score(
    model,
    tokenizer,
    questions: Sequence[tuple[Prompt | str, Sequence[str]]],
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
    rewards: dict[tuple[int, int], float] = {}
    with tqdm(total=sum(len(row.keys) for row in rows), desc=progress, unit="candidate", disable=not progress) as bar:
        for batch in batches_by_length(rows, batch_size):
            tensors = pad_rows([rows[number] for number in batch], tokenizer.pad_token_id)
            scores = packed_scores(model, {name: tensor.to(model.device) for name, tensor in tensors.items()})
            rewards |= zip((key for number in batch for key in rows[number].keys), scores.tolist(), strict=True)
            bar.update(len(scores))
    return [[rewards[number, place] for place in range(len(queries))] for number, (_, queries) in enumerate(questions)]


def _sequences(
    tokenizer, questions: Sequence[tuple[Prompt | str, Sequence[str]]]
) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """((question, candidate), token ids), ordered so that what begins alike stands together."""
    for number in sorted(range(len(questions)), key=lambda number: str(questions[number][0])):
        prompt, queries = questions[number]
        if queries:
            encoded = encode_candidates(tokenizer, prompt, queries)
            for place in sorted(range(len(queries)), key=encoded.__getitem__):
                yield (number, place), encoded[place]
