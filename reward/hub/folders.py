"""Folders for the model hub: adapter, merged model and pairs, each with its card, and nothing of this machine.

Not here: the texts of the cards (`reward.hub.model_cards`, `reward.hub.pairs_card`), merging (`reward.export`).
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.files import InputError, read_json, write_json
from common.manifest import MERGED_MANIFEST, file_fingerprint
from common.preference import PreferencePair, iterate_pairs, read_pairs
from common.trained_on import FILE as TRAINED_ON
from common.trained_on import check_overlap, recorded_result_length
from reward.checkpoints import UNFINISHED
from reward.hub.figures import Figures, figures_of
from reward.hub.model_cards import ModelFacts, adapter_card, merged_card
from reward.hub.names import SOURCES, TEST, TRAIN, Names, folder_name
from reward.hub.pairs_card import pairs_card
from reward.hub.snippets import example_pair
from reward.report import training_facts
from reward.settings import TrainingSettings

TRAIN_AGAIN = "name an adapter that `python train.py` (step 5) has finished"
EVALUATE_FIRST = "judge the adapter by the test pairs first: `python evaluate.py --adapters none ADAPTER` (step 6)"
# what of an adapter's folder is shared as it is
SHARED = ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "metrics.json", "training_curve.png")
OF_THIS_MACHINE = ("model_id", "data_path", "output_dir", "report_to", "fresh")  # settings that others do not need
LOCAL = ("is_local", "local_files_only")  # that transformers puts into tokenizer_config.json


@dataclass(frozen=True)
class HubInputs:
    """What is shared, by the flags of `reward.export`, all of it read and checked."""

    adapter: Path
    base: Path
    names: Names
    source: str
    train_data: Path
    test_data: Path
    manifest: dict
    trained_on: dict
    training: dict[str, object]
    figures: Figures
    example: PreferencePair


# --- what is shared, checked ------------------------------------------------------------------------------------------


def hub_names(repository: str, base: Path, base_repository: str | None) -> Names:
    """Raises InputError for what is no name on the hub."""
    if not base_repository and not base.name.startswith("Qwen"):
        raise InputError(
            f"--base_repo: give the name of {base} on the hub, for example Qwen/Qwen2.5-Coder-1.5B-Instruct"
        )
    names = {"--hub_repo": repository, "--base_repo": base_repository or f"Qwen/{base.name}"}
    for flag, name in names.items():
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) or name.endswith((".", "-", ".git")):
            raise InputError(f"{flag} {name}: expected OWNER/NAME of letters, digits, '-', '_' and '.'")
    return Names(*names.values())


def read_inputs(
    adapter: Path, base: Path, names: Names, source: str, train_data: Path, test_data: Path, report: Path
) -> HubInputs:
    """Raises InputError where something is missing, or does not belong together."""
    if (adapter / UNFINISHED).exists():
        raise InputError(f"{adapter}: its training is not finished; {TRAIN_AGAIN}")
    if missing := [name for name in (*SHARED, "tokenizer_config.json") if not (adapter / name).is_file()]:
        raise InputError(f"{adapter}: {missing[0]} is missing; {TRAIN_AGAIN}")
    manifest, trained_on, metrics = (
        read_json(adapter / name, dict, TRAIN_AGAIN) for name in ("manifest.json", TRAINED_ON, "metrics.json")
    )
    try:
        pairs = f"{metrics['train_pairs']} for training, {metrics['validation_pairs']} for validation"
        training = {"pairs": pairs, **training_facts(TrainingSettings(**manifest["arguments"]), metrics)}
        digest = trained_on["data"]["sha256"]
    except (KeyError, TypeError):
        raise InputError(f"{adapter}: not what this version of train.py writes; {TRAIN_AGAIN}") from None
    if not any(True for _ in iterate_pairs(train_data)) or file_fingerprint(train_data) != digest:
        raise InputError(f"{train_data}: not the file that {adapter} was trained on; name that one with --train_data")
    test = read_pairs(test_data)
    databases, prompts = {pair.db_id for pair in test}, {pair.prompt for pair in test}
    check_overlap(adapter, str(test_data), databases, prompts, "name other pairs with --test_data")
    return HubInputs(
        *(adapter, base, names, source, train_data, test_data, manifest, trained_on, training),
        figures=_figures(report, adapter, test_data),
        example=example_pair(test, str(test_data)),
    )


def _figures(path: Path, adapter: Path, test_data: Path) -> Figures:
    """What the report says of the adapter. Raises InputError when it was judged by other pairs, or by known data."""
    report = read_json(path, dict, EVALUATE_FIRST)
    try:
        if report["manifest"]["arguments"]["allow_overlap"]:
            raise InputError(f"{path}: was made with --allow_overlap; {EVALUATE_FIRST}")
        judged_by = report["manifest"]["inputs"]["test_data"]["sha256"]
        called = [name for name in report["pairs"]["adapters"] if Path(name).resolve() == adapter.resolve()]
        if judged_by != file_fingerprint(test_data) or not called:
            raise InputError(f"{path}: says nothing of {adapter} on {test_data}; {EVALUATE_FIRST}")
        return figures_of(report, called[0])
    except (KeyError, TypeError, IndexError):
        raise InputError(f"{path}: not a report of evaluate.py on pairs; {EVALUATE_FIRST}") from None


# --- folders ----------------------------------------------------------------------------------------------------------


def write_adapter(inputs: HubInputs, folder: Path) -> None:
    """The adapter as train.py left it, without checkpoints and without what is of this machine."""
    folder.mkdir()
    for name in SHARED:
        shutil.copyfile(inputs.adapter / name, folder / name)
    config = read_json(inputs.adapter / "adapter_config.json", dict)
    write_json(folder / "adapter_config.json", config | {"base_model_name_or_path": inputs.names.base})
    clean_tokenizer(inputs.adapter / "tokenizer_config.json", folder)
    data = {**inputs.trained_on["data"], "path": TRAIN}
    write_json(folder / TRAINED_ON, {**inputs.trained_on, "data": data})
    kept = ("model_fingerprint", "prompt_settings", "seed", "versions", "counts")
    settings = {name: value for name, value in inputs.manifest["arguments"].items() if name not in OF_THIS_MACHINE}
    facts = {name: inputs.manifest.get(name) for name in kept}
    write_json(folder / "manifest.json", {"model": inputs.names.base, "arguments": settings, **facts})
    (folder / "README.md").write_text(adapter_card(_model_facts(inputs)), encoding="utf-8")


def finish_merged(inputs: HubInputs, folder: Path) -> None:
    """Card beside a merged model, whose tokenizer is freed of what is of this machine."""
    clean_tokenizer(folder / "tokenizer_config.json", folder)
    if (inputs.base / "LICENSE").is_file():
        shutil.copyfile(inputs.base / "LICENSE", folder / "LICENSE")
    (folder / "README.md").write_text(merged_card(_model_facts(inputs)), encoding="utf-8")


def clean_tokenizer(config: Path, folder: Path) -> None:
    """A tokenizer_config.json in the folder without LOCAL."""
    content = {name: value for name, value in read_json(config, dict).items() if name not in LOCAL}
    write_json(folder / config.name, content)


def write_pairs(inputs: HubInputs, folder: Path) -> None:
    """Both splits as JSON Lines with this project's columns, the card, and what says how their prompts were made."""
    folder.mkdir()
    splits = {"train": (inputs.train_data, TRAIN), "test": (inputs.test_data, TEST)}
    counts = {split: write_rows(iterate_pairs(path), folder / name) for split, (path, name) in splits.items()}
    manifest = _merged_manifest(inputs.train_data)
    card = inputs.train_data.with_suffix(".md")
    contents = card.read_text(encoding="utf-8") if manifest and card.is_file() else ""
    contents = re.sub("^#", "##", contents, flags=re.MULTILINE)
    text = pairs_card(inputs.names, SOURCES[inputs.source], counts, contents)
    (folder / "README.md").write_text(text, encoding="utf-8")
    if manifest:
        outputs = {name: file_fingerprint(folder / name) for name in (TRAIN, TEST)}
        write_json(folder / MERGED_MANIFEST, {"run": manifest["run"], "outputs": outputs})


def _merged_manifest(train_data: Path) -> dict | None:
    """The manifest of `tree.merge_shards` beside a pair file, if it is of this very file."""
    path = train_data.with_name(MERGED_MANIFEST)
    manifest = read_json(path, dict) if path.is_file() else {}
    outputs = manifest.get("outputs")
    written = outputs.values() if isinstance(outputs, Mapping) else ()
    return manifest if "run" in manifest and file_fingerprint(train_data) in written else None


def write_rows(pairs: Iterable[PreferencePair], path: Path) -> int:
    """JSON Lines of pairs; returns their number."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for pair in pairs:
            file.write(json.dumps(pair.to_json(), ensure_ascii=False) + "\n")
            count += 1
    return count


def _model_facts(inputs: HubInputs) -> ModelFacts:
    return ModelFacts(
        inputs.names,
        inputs.figures,
        inputs.example,
        recorded_result_length(inputs.adapter),
        inputs.trained_on.get("prompt_settings"),
        inputs.training,
        SOURCES[inputs.source],
        _license_of(inputs.base),
    )


def _license_of(base: Path) -> dict[str, str]:
    """What the base model's own card says of its licence, for the metadata of what is made of it."""
    from huggingface_hub import ModelCard

    card = base / "README.md"
    said = ModelCard.load(card).data.to_dict() if card.is_file() else {}
    return {name: said[name] for name in ("license", "license_name", "license_link") if name in said}


def upload_commands(folder: Path, names: Names) -> Sequence[str]:
    """What puts the folders on the hub."""
    models = [f"hf upload {name} {folder / folder_name(name)} ." for name in (names.adapter, names.merged)]
    return [*models, f"hf upload {names.pairs} {folder / folder_name(names.pairs)} . --repo-type dataset"]
