"""What prompts are made with beside their databases, and where a file says it of its own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from common.files import read_json
from common.manifest import MERGED_MANIFEST, file_fingerprint
from tree.pairs.pair_files import pair_manifest_path
from tree.schema.write import FORMATS

OF_A_RUN = ("all_trees.json", "candidates.json")  # files that stand beside the manifest of the run that made them


@dataclass(frozen=True)
class PromptSettings:
    """What makes the prompt of a question, by the names of the flags of `tree.run_pipeline`.

    `max_prompt_tokens` is the longest prompt, for which the schema is shortened.
    """

    schema_format: str = FORMATS[0]
    no_values: bool = False
    max_prompt_tokens: int = 3584

    @classmethod
    def of(cls, recorded: object) -> "PromptSettings | None":
        """Those among recorded settings, by name; None where they are not all there, or are none that can be used."""
        names = [field.name for field in fields(cls)]
        if not isinstance(recorded, Mapping) or not all(name in recorded for name in names):
            return None
        found = cls(**{name: recorded[name] for name in names})
        known = found.schema_format in FORMATS and isinstance(found.no_values, bool)
        return found if known and type(found.max_prompt_tokens) is int and found.max_prompt_tokens > 0 else None


def made_with(path: str | os.PathLike) -> PromptSettings | None:
    """What the prompts in a file were made with, as the manifest beside it says; None when none says so.

    A pair file, of a shard or merged, is known by its fingerprint, so that a manifest which another file of the name
    has left there says nothing of this one.
    """
    path = Path(path)
    if path.name in OF_A_RUN and (manifest := path.with_name("manifest.json")).is_file():
        return PromptSettings.of(read_json(manifest, dict).get("arguments"))
    for manifest in (pair_manifest_path(path), path.with_name(MERGED_MANIFEST), path.with_suffix(".manifest.json")):
        if manifest.is_file():
            content = read_json(manifest, dict)
            outputs = content.get("outputs")
            written = {content.get("sha256"), *(outputs.values() if isinstance(outputs, dict) else ())}
            if file_fingerprint(path) in written:
                return PromptSettings.of(content.get("run"))
    return None
