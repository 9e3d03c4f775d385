"""Which data an adapter was trained on: it is not judged by the same, and asked with prompts of its kind."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from common.files import InputError, read_json, write_json
from common.preference import PreferencePair, Prompt, prompt_digest

FILE = "trained_on.json"
FIX = "name other data, or accept inflated figures with --allow_overlap"


def write_trained_on(
    folder: Path,
    pairs: Iterable[PreferencePair],
    data: dict,
    prompt_settings: dict | None = None,
    result_length: int = 0,
) -> None:
    """Write `trained_on.json` beside an adapter: the databases and prompts of its pairs, those for validation too.

    `data` names the pair file (path and sha256), `prompt_settings` say what its prompts were made with (None: unknown),
    `result_length` how much of each result was read.
    """
    pairs = list(pairs)
    write_json(
        folder / FILE,
        {
            "data": data,
            "prompt_settings": prompt_settings,
            "result_length": result_length,
            "databases": sorted({pair.db_id for pair in pairs} - {""}),
            "prompts": sorted({prompt_digest(pair.prompt) for pair in pairs}),
        },
    )


def recorded_prompt_settings(adapter: str | os.PathLike) -> object:
    """What the adapter's folder says that the prompts of its pairs were made with; None when it does not say."""
    seen = Path(adapter) / FILE
    return read_json(seen, dict).get("prompt_settings") if seen.is_file() else None


def recorded_result_length(adapter: str | os.PathLike) -> int:
    """How many characters of results an adapter reads below each query, see `common.preference.answer`.

    0 when its folder does not say. Raises InputError for what is no such number.
    """
    seen = Path(adapter) / FILE
    length = read_json(seen, dict).get("result_length", 0) if seen.is_file() else 0
    if type(length) is not int or length < 0:
        raise InputError(f"{seen}: 'result_length' is {length!r}, expected 0 or more characters; train again")
    return length


def overlap(adapter: str | os.PathLike, path: str, db_ids: Iterable[str], digests: Collection[str]) -> str:
    """What the adapter was trained on of the file `path`, or that it does not say so, as a sentence; "" for nothing.

    `digests` are those of the file's prompts. Raises InputError for a record that is none.
    """
    seen = Path(adapter) / FILE
    if not seen.is_file():
        return f"{seen}: no such file, so the adapter may have been trained on {path}"
    content = read_json(seen, dict)
    try:
        known_databases, known_prompts = set(content["databases"]), set(content["prompts"])
    except (KeyError, TypeError):
        raise InputError(f"{seen}: expected lists 'databases' and 'prompts'; train again") from None
    shared = []
    if databases := sorted(known_databases.intersection(db_ids)):
        more = f" and {len(databases) - 1} more databases" if len(databases) > 1 else ""
        shared.append(f"database '{databases[0]}'{more}")
    if repeated := len(known_prompts.intersection(digests)):
        shared.append(f"{repeated} of its {len(digests)} prompts")
    return f"{path}: {adapter} was trained on {', and on '.join(shared)}" if shared else ""


def check_overlap(
    adapter: str | os.PathLike, path: str, db_ids: Iterable[str], prompts: Collection[Prompt], fix: str = FIX
) -> None:
    """Raise InputError when the adapter was trained on a database or a prompt of the file `path`, or does not say."""
    if found := overlap(adapter, path, db_ids, set(map(prompt_digest, prompts))):
        raise InputError(f"{found}; {fix}")
