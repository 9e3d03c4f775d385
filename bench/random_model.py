"""A model folder of random weights with a byte-level tokenizer: any configuration, without a model hub."""

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_tokenizer(folder: Path) -> int:
    """A tokenizer with a token for each byte and three special ones, and a chat template; returns their number."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return len(vocabulary)


def write_random_model(
    folder: Path, architecture: str = "qwen2", seed: int = 0, device: str = "cpu", dtype: str = "float32", **config
) -> Path:
    """Write model and tokenizer to `folder`. `config`: what differs from the architecture's defaults."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {"vocab_size": write_tokenizer(folder), "pad_token_id": 0, "eos_token_id": 2} | config
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(architecture, **config), dtype=getattr(torch, dtype)
        )
    model.save_pretrained(folder)
    return folder
