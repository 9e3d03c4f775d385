"""Which data a reward model was trained on, so that it is not evaluated on the same."""

import os
from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path

from reward.data import PreferencePair, Prompt
from tree.files import InputError, read_json, write_json

FILE = "trained_on.json"
HOW = "name other data, or accept inflated figures with --allow_overlap"


def prompt_digest(prompt: Prompt) -> str:
    """16 hex digits of the SHA-256 of a conversation."""
    text = "\0".join(part for turn in prompt for part in turn)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_trained_on(folder: Path, pairs: Iterable[PreferencePair], data: dict) -> None:
    """Write `trained_on.json` beside an adapter: the databases and prompts of its pairs, those for validation too.

    `data` names the pair file (path and sha256).
    """
    pairs = list(pairs)
    write_json(
        folder / FILE,
        {
            "data": data,
            "databases": sorted({pair.db_id for pair in pairs} - {""}),
            "prompts": sorted({prompt_digest(pair.prompt) for pair in pairs}),
        },
    )


def check_overlap(adapter: str | os.PathLike, path: str, db_ids: Iterable[str], prompts: Collection[Prompt]) -> None:
    """Raise InputError when the adapter was trained on a database or a prompt of the file `path`, or does not say."""
    seen = Path(adapter) / FILE
    if not seen.is_file():
        raise InputError(f"{seen}: no such file, so the adapter may have been trained on {path}; {HOW}")
    content = read_json(seen, dict)
    try:
        known_databases, known_prompts = set(content["databases"]), set(content["prompts"])
    except (KeyError, TypeError):
        raise InputError(f"{seen}: expected lists 'databases' and 'prompts'; {HOW}") from None
    databases = sorted(known_databases.intersection(db_ids))
    if databases:
        more = f" and {len(databases) - 1} more databases" if len(databases) > 1 else ""
        raise InputError(f"{path}: {adapter} was trained on database '{databases[0]}'{more}; {HOW}")
    repeated = sum(prompt_digest(prompt) in known_prompts for prompt in prompts)
    if repeated:
        raise InputError(f"{path}: {adapter} was trained on {repeated} of its {len(prompts)} prompts; {HOW}")
