"""The reward model: a base model with LoRA and a scalar score head in float32. Load, check, score.

User = the task prompt, assistant = the bare SQL, through the model's own chat template; the score is read at the last
token. Bradley-Terry training on it is TRL's RewardTrainer.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from tree.files import InputError, read_json
from tree.model_folder import architecture, model_fingerprint, tensor_shapes

ADAPTER_WEIGHTS = "adapter_model.safetensors"
HEAD_SEED = 0


class Float32Head(nn.Linear):
    """A linear head that computes in float32 whatever the base model's dtype: [..., hidden] -> [..., 1].

    bfloat16 scores are off by a good part of their range, which reorders close candidates.
    """

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight)


def base_dtype(name: str = "auto") -> torch.dtype:
    """The dtype of the frozen base by name; auto: bfloat16 on a GPU that has it, float32 otherwise."""
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    return getattr(torch, name)


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


def encode(tokenizer, prompt: str, sql: str) -> list[int]:
    """Token ids of one candidate, the same that TRL makes of a conversational pair."""
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": sql}]
    return tokenizer.apply_chat_template(messages, return_dict=False)


def load_base(base: str | os.PathLike, pad_token_id: int, dtype: torch.dtype):
    """The base model as …ForSequenceClassification with one label and an untrained float32 head, always the same."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn that the head is new, which is the point
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=dtype)
    logging.set_verbosity(verbosity)
    model.config.pad_token_id = pad_token_id
    head = Float32Head(model.config.hidden_size, 1, bias=False)
    nn.init.normal_(head.weight, std=model.config.initializer_range, generator=torch.Generator().manual_seed(HEAD_SEED))
    model.score = head
    return model


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


def load_reward_model(
    base: str | os.PathLike, adapter: str | os.PathLike | None, dtype: torch.dtype, pad_token_id: int
):
    """Base model with the adapter's LoRA and score head (None: untrained), in eval mode, on the GPU if there is one."""
    model = load_base(base, pad_token_id, dtype)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


@torch.no_grad()
def score(
    model, sequences: Sequence[Sequence[int]], batch_size: int, pad_token_id: int, progress: str = ""
) -> list[float]:
    """Reward of each token sequence, in the order given; batches of similar length, with a progress bar if named."""
    from tqdm import tqdm

    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    rewards = [0.0] * len(sequences)
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc=progress, unit="batch", disable=not progress):
        batch = order[start : start + batch_size]
        longest = max(len(sequences[index]) for index in batch)
        ids = torch.full((len(batch), longest), pad_token_id)
        for row, index in enumerate(batch):
            ids[row, : len(sequences[index])] = torch.tensor(sequences[index])
        lengths = torch.tensor([len(sequences[index]) for index in batch])
        mask = (torch.arange(longest) < lengths[:, None]).long()
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
        for index, reward in zip(batch, logits.squeeze(-1).float().tolist(), strict=True):
            rewards[index] = reward
    return rewards
