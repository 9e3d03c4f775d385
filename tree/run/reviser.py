"""The adapter of `tree.train_reviser` that a run is to write its revisions with: is it one, and one for this run?"""

from pathlib import Path

from common.files import InputError, read_json
from common.model_folder import model_fingerprint
from common.preference import prompt_digest, user_prompt
from common.trained_on import overlap
from tree.generator import Reviser
from tree.run.work_list import WorkList

ADAPTER_WEIGHTS = "adapter_model.safetensors"
MOST_RANK = 512  # that vLLM computes
TRAIN = "train one with `python -m tree.train_reviser`"


def read_reviser(name: str, model: Path, revision: str | None = None) -> Reviser | None:
    """The reviser in a folder, None for "". Raises InputError unless it is of this model, for this way of asking.

    Without `revision` the way is the one that it was trained for.
    """
    if not name:
        return None
    folder = Path(name)
    for name in ("adapter_config.json", ADAPTER_WEIGHTS, "manifest.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing, so it holds no reviser; {TRAIN}")
    manifest, config = (read_json(folder / name, dict) for name in ("manifest.json", "adapter_config.json"))
    arguments, rank, layers = manifest.get("arguments"), config.get("r"), config.get("target_modules")
    asked = arguments.get("revision") if isinstance(arguments, dict) else None
    if asked is None or not (isinstance(rank, int) and 0 < rank <= MOST_RANK and isinstance(layers, list)):
        raise InputError(f"{folder}: holds an adapter, but no reviser of rank {MOST_RANK} or less; {TRAIN}")
    if revision not in (None, asked):
        raise InputError(
            f"{folder}: was trained for --revision {asked}, not for {revision}; give that, or train another one"
        )
    if manifest.get("model_fingerprint") != model_fingerprint(model):
        raise InputError(f"{folder}: was trained on {manifest.get('model')}, whose weights are not those of {model}")
    targets = {str(layer).split(".")[-1] for layer in layers}
    return Reviser(folder, asked, rank, tuple(sorted(targets)))


def reviser_inputs(reviser: Reviser | None) -> dict[str, Path]:
    """What a run's manifest is to record of its reviser, so that another one makes another run."""
    return {"reviser": reviser.folder / ADAPTER_WEIGHTS} if reviser else {}


def warn_of_overlap(reviser: Reviser | None, work: WorkList) -> None:
    """Say so when a reviser was trained on questions of a run, or on their databases."""
    if reviser is None:
        return
    digests = {prompt_digest(user_prompt(work.prompt(question))) for question in work.questions}
    if found := overlap(reviser.folder, work.data, work.databases(), digests):
        print(f"warning: {found}; it may know answers by heart, so give it other questions")
