"""The settings of a script that trains: the constants on its top, which are Python, and flags of the same names."""

import argparse
import ast
import math
import os
import tokenize
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Real
from pathlib import Path
from typing import TypeVar

from common.files import InputError


@dataclass(frozen=True)
class LoraSettings:
    """What every script that trains LoRA is told, by its constants in lower case; the comments there explain."""

    model_id: str
    validation_fraction: float
    max_length: int
    token_budget: int
    base_dtype: str
    lora_r: int
    lora_alpha: int
    lora_dropout: float
    lora_targets: str
    learning_rate: float
    epochs: float
    max_steps: int
    batch_size: int
    gradient_accumulation: int
    warmup_fraction: float
    gradient_checkpointing: bool
    logging_steps: int
    eval_steps: int
    seed: int
    output_dir: str
    fresh: bool
    checkpoint_steps: int
    report_to: str


@dataclass(frozen=True)
class TrainingSettings(LoraSettings):
    """What train.py is told beside these."""

    data_path: str
    result_length: int
    weight_decay: float
    flex_attention: bool
    early_stopping: int


Settings = TypeVar("Settings", bound=LoraSettings)

NAMES = {str: "text", bool: "True or False", int: "a whole number", float: "a number"}


def settings_of(
    kind: type[Settings], module: Mapping[str, object], given: Mapping[str, object] | None = None
) -> Settings:
    """The settings, a dataclass, that the constants of a module's globals make, with those `given` in their place.

    Other constants are the user's own helpers and stay what they are. Raises InputError for a constant that is missing
    or of another type: whole numbers do for numbers (also 8 / 2 for a whole one), paths for text.
    """
    values, script = {}, Path(module["__file__"]).name
    for name, wanted in _types(kind).items():
        if given and name in given:
            values[name] = _as_type(f"--{name}", given[name], wanted)
        elif name.upper() in module:
            values[name] = _as_type(f"{script}: {name.upper()}", module[name.upper()], wanted)
        else:
            raise InputError(f"{script}: the constant {name.upper()} is missing; put it back, or give --{name}")
    return kind(**values)


def _types(kind: type[Settings]) -> dict[str, type]:
    return {field.name: field.type for field in fields(kind)}


def _as_type(what: str, value: object, kind: type) -> object:
    """The value as the type of its setting. Raises InputError."""
    if kind is str and isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if kind is bool and isinstance(value, bool):
        return value
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if kind in (int, float) and is_number and (kind is float or value == int(value)):
        return kind(value)
    raise InputError(f"{what} is {value!r}, but must be {NAMES[kind]}")


def read_settings(kind: type[Settings], module: Mapping[str, object], words: list[str] | None = None) -> Settings:
    """The settings of the script whose globals are `module`: its constants, or flags in their place.

    --help has them in the order of the constants. Raises InputError for one that is out of its range.
    """
    parser = argparse.ArgumentParser(
        description=module["__doc__"], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    comments = comments_of(module["__file__"])
    places = {name: place for place, name in enumerate(module)}
    types = _types(kind)
    for name in sorted(types, key=lambda name: places.get(name.upper(), len(places))):
        text = f"{comments.get(name.upper(), '')} (default {module.get(name.upper())})".strip()
        parse = _boolean if types[name] is bool else types[name]
        parser.add_argument(f"--{name}", type=parse, default=argparse.SUPPRESS, help=text.replace("%", "%%"))
    settings = settings_of(kind, module, vars(parser.parse_args(words)))
    check_settings(settings)
    return settings


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, not {text!r}")
    return text.lower() == "true"


def comments_of(path: str | os.PathLike) -> dict[str, str]:
    """The last comment on the lines of every assignment in a Python file, by the names it assigns to."""
    with open(path, "rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
    lines = {token.start[0]: token.string for token in tokens}
    comments = {}
    for statement in ast.walk(ast.parse(Path(path).read_bytes())):
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            found = [lines[line] for line in range(statement.lineno, statement.end_lineno + 1) if line in lines]
            for part in ast.walk(statement):
                if found and isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    comments[part.id] = found[-1].lstrip("# ")
    return comments


# ranges of the settings that a script has
RANGES = (
    ("model_id data_path tree_files output_dir", str.strip, "a path, not empty"),
    ("max_length token_budget lora_r lora_alpha batch_size", lambda value: value >= 1, "1 or more"),
    ("gradient_accumulation logging_steps", lambda value: value >= 1, "1 or more"),
    ("base_dtype", ("auto", "float32", "bfloat16").__contains__, "auto, float32 or bfloat16"),
    ("result_length eval_steps checkpoint_steps early_stopping", lambda value: value >= 0, "0 (off) or more"),
    ("max_per_question weight_decay", lambda value: value >= 0, "0 (off) or more"),
    ("validation_fraction lora_dropout warmup_fraction", lambda value: 0 <= value < 1, "from 0 to below 1"),
    ("learning_rate epochs", lambda value: value > 0, "positive"),
    ("max_steps", lambda value: value != 0, "positive (-1 = off)"),
    ("seed", lambda value: 0 <= value < 2**32, "from 0 to below 2**32"),
)


def check_settings(settings: LoraSettings) -> None:
    """Raise InputError for a setting out of its range."""
    values = asdict(settings)
    for names, is_right, must in RANGES:
        for name in names.split():
            if name in values and not is_right(values[name]):
                raise InputError(f"--{name} {values[name]}: must be {must}")
    if values.get("early_stopping") and not settings.validation_fraction:
        raise InputError("--early_stopping needs validation: set --validation_fraction above 0")
