"""Python that a model's card shows: how to score, on an example that also shows how inputs are made.  Pure."""

from collections.abc import Sequence

from common.files import InputError
from common.preference import PreferencePair
from reward.hub.names import Names, folder_name

WITH_RESULTS = """\
results = {{  # each query, and what executing it said
{rows}
}}
length = {length}  # of what executing a query said, so many characters are read
answers = [
    f"{{sql}}\\n\\n{{result if len(result) <= length else result[: length - 1] + '…'}}"
    for sql, result in results.items()
]"""
WITHOUT_RESULTS = """\
answers = [
{rows}
]"""
PLAIN = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

prompt = {prompt}
{answers}

tokenizer = AutoTokenizer.from_pretrained("{names.merged}")
model = AutoModelForSequenceClassification.from_pretrained("{names.merged}").eval()
rewards = []
for answer in answers:
    messages = [{{"role": "user", "content": prompt}}, {{"role": "assistant", "content": answer}}]
    tokens = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        rewards.append(model(**tokens).logits.item())
print(rewards)"""
PACKED = """\
from reward.model import load_reward_model, score

prompt = {prompt}
{answers}

model, tokenizer = load_reward_model("{names.base_folder}", "{folder}", dtype="float32")
[rewards] = score(model, tokenizer, [(prompt, answers)])
print(rewards)"""


def literal(text: str) -> str:
    """The text as a Python literal, whose lines stand as they are."""
    shown = "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text.replace("\\", r"\\")
    )
    shown = shown.replace('"""', r"\"\"\"")
    return f'"""{shown[:-1]}{shown[-1:].replace(chr(34), chr(92) + chr(34))}"""'


def snippet(template: str, names: Names, pair: PreferencePair, result_length: int) -> str:
    """Python that scores both queries of a pair whose prompt is one turn of the user."""
    if result_length:
        known = {pair.chosen: pair.chosen_result, pair.rejected: pair.rejected_result}
        rows = [f"    {literal(sql)}: {literal(result)}," for sql, result in known.items()]
        answers = WITH_RESULTS.format(rows="\n".join(rows), length=result_length)
    else:
        answers = WITHOUT_RESULTS.format(rows="\n".join(f"    {literal(sql)}," for sql in (pair.chosen, pair.rejected)))
    folder = folder_name(names.adapter)
    return template.format(prompt=literal(pair.prompt[0].content), answers=answers, names=names, folder=folder)


def example_pair(pairs: Sequence[PreferencePair], path: str) -> PreferencePair:
    """The pair with the shortest prompt, among those whose prompt is one turn of the user. Raises InputError."""
    usable = [pair for pair in pairs if len(pair.prompt) == 1 and pair.prompt[0].role == "user"]
    if not usable:
        raise InputError(f"{path}: no pair has a prompt of one user turn, which the cards show as an example")
    return min(usable, key=lambda pair: len(pair.prompt[0].content))
