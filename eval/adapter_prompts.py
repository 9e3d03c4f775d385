"""Which prompts each adapter is asked behind: those that candidates bring, else ones as it was trained behind."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import InputError
from common.manifest import differences
from common.trained_on import FILE, recorded_prompt_settings
from eval.candidates import CandidatePool
from tree.generator import encode
from tree.run.preflight import prepare_prompts
from tree.run.prompt_settings import PromptSettings, made_with
from tree.run.work_list import WorkList

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNTRAINED = "none"  # the name of the base model without an adapter

OfAdapters = Mapping[str, PromptSettings | None]  # what the prompts it was trained behind were made with; None: unknown


def prompt_settings_of(adapters: Sequence[str]) -> OfAdapters:
    """Adapter -> what the prompts that it was trained behind were made with; None when its folder does not say.

    The untrained base is asked as the first adapter beside it, alone as step 4.1 does unless told otherwise.
    Raises InputError for settings that are none.
    """
    trained = {adapter: _recorded(adapter) for adapter in adapters if adapter != UNTRAINED}
    found = {UNTRAINED: next(iter(trained.values()), PromptSettings()), **trained}
    return {adapter: found[adapter] for adapter in adapters}


def _recorded(adapter: str) -> PromptSettings | None:
    recorded = recorded_prompt_settings(adapter)
    settings = PromptSettings.of(recorded)
    if recorded is not None and settings is None:
        raise InputError(f"{Path(adapter) / FILE}: 'prompt_settings' are none that can be used; train again")
    return settings


def warn_of_other_prompts(path: str, adapters: OfAdapters) -> None:
    """Name each adapter that was trained behind prompts made in another way than those in a file."""
    made = made_with(path)
    for adapter, own in adapters.items():
        if adapter != UNTRAINED and made and own and made != own:
            changed = ", ".join(differences(vars(own), vars(made)))
            print(f"warning: {path}: {adapter} was trained behind other prompts than these ({changed})")


def pools_by_adapter(
    pools: Sequence[CandidatePool],
    adapters: OfAdapters,
    path: str | None,
    db_root: str,
    tokenizer: "PreTrainedTokenizerBase",
) -> dict[str, list[CandidatePool]]:
    """Adapter -> the questions of `path`, with prompts as it was trained behind where they bring none."""
    lacking = sum(not pool.prompt for pool in pools)
    made: dict[PromptSettings, list[CandidatePool]] = {}
    for adapter, own in adapters.items():
        if lacking and own is None and adapter != UNTRAINED:
            print(
                f"warning: {adapter} does not say what its prompts were made with, so the {lacking} questions of "
                f"{path} without a prompt get one as step 4.1 makes it by default ({PromptSettings()}); if the adapter "
                "was trained behind others, give the rows a 'prompt'"
            )
        settings = own or PromptSettings()
        if settings not in made:
            made[settings] = with_prompts(pools, settings, path, db_root, tokenizer)
    return {adapter: made[own or PromptSettings()] for adapter, own in adapters.items()}


def with_prompts(
    pools: Sequence[CandidatePool],
    settings: PromptSettings,
    path: str,
    db_root: str,
    tokenizer: "PreTrainedTokenizerBase",
) -> list[CandidatePool]:
    """The same, with a prompt for those of `path` that lack one, as step 4.1 writes it with these settings.

    Raises InputError for a question whose prompt cannot be made short enough.
    """
    if all(pool.prompt for pool in pools):
        return list(pools)
    work = WorkList([pool.question for pool in pools if not pool.prompt], path, db_root, settings)
    prepare_prompts(work, partial(encode, tokenizer))
    if work.skipped:
        first = work.skipped[0]
        raise InputError(f"{path}: question_id {first['question_id']}: {first['reason']}; give the row a 'prompt'")
    return [pool if pool.prompt else replace(pool, prompt=work.prompt(pool.question)) for pool in pools]
