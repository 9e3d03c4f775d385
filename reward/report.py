"""What a training run leaves beside its adapter: numbers, curves and the model card."""

import math
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.drawing import COLOURS, GREY, label_ends, picture
from common.files import replacing, write_json
from common.manifest import Manifest
from common.preference import PreferencePair
from reward.metrics import bradley_terry_loss, grouped_metrics, pair_metrics
from reward.settings import LoraSettings, TrainingSettings

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Curve:
    """A figure of the history over the steps, by its name there, and what chance gives (None: nothing to show)."""

    key: str
    label: str
    chance: float | None = None


ADVICE = "train longer, on more questions, or with another --learning_rate"
REWARD_CURVES = Curve("loss", "Bradley-Terry loss", math.log(2)), Curve("accuracy", "pairwise accuracy", 0.5)
CARD = """# {name}

A reward model for text-to-SQL: given a task prompt (schema, evidence, question) and an SQL query{result}, one number,
higher for queries that are right or nearer to a right one. LoRA adapter and score head (in float32) of `{base}`,
trained with the pairwise loss of Bradley and Terry on pairs of queries from revision trees.

| | |
|---|---|
{facts}

All settings and versions: `manifest.json`. Curves: `training_curve.png`, numbers: `metrics.json`.

## Use

From the project's folder, with the base model in `{base}`:

```python
from common.preference import answer
from reward.model import load_reward_model, score

model, tokenizer = load_reward_model("{base}", "{name}")
candidates = [answer(sql, result, {result_length}) for sql, result in executed.items()]
[rewards] = score(model, tokenizer, [(prompt, candidates)])
```

As a plain sequence classification model for other programs:
`python -m reward.export --adapter {name} --base_model {base} --output {name}-merged`.

Rewards order queries of one prompt; across prompts they are not comparable.
"""


def write_results(
    output: Path,
    settings: TrainingSettings,
    manifest: Manifest,
    history: Sequence[dict],
    metrics: dict,
    differences: Sequence[float],
) -> None:
    """Write metrics.json, training_curve.png, README.md and manifest.json beside the adapter, and say how it went.

    `metrics` and `differences` (of rewards, chosen minus rejected, of the validation pairs) are of the saved model.
    """
    draw_curves(history, REWARD_CURVES, output / "training_curve.png")
    write_card(output, settings, manifest.content["inputs"]["data"], metrics)
    write_metrics(output, manifest, history, metrics, validation_warnings(differences, metrics, history))


def write_metrics(
    output: Path, manifest: Manifest, history: Sequence[dict], metrics: dict, warnings: Sequence[str]
) -> None:
    """Write metrics.json and, last, manifest.json beside an adapter, and say how it went.

    `warnings` are ends of sentences that begin with "the saved model".
    """
    for warning in warnings:
        print(f"warning: the saved model (step {metrics['kept_step']}) {warning}")
    write_json(output / "metrics.json", metrics | {"history": history})
    manifest.write(output / "manifest.json", **metrics)
    print(
        f"loss {metrics['train_loss_first']:.4f} -> {metrics['train_loss_last']:.4f} in {metrics['steps']} steps, "
        f"{metrics['seconds']:.0f} s, {metrics['tokens_per_second']:.0f} tokens/s, "
        f"{metrics['peak_memory_mb']} MB at most; adapter, metrics and curves in {output}"
    )


# --- numbers --------------------------------------------------------------------------------------------------------


def peak_memory_mb() -> int:
    """The most memory (MB = 2**20 bytes) that tensors had on the GPU so far; without one, that the process had."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10  # KiB


def history_metrics(history: Sequence[dict], seconds: float, first_step: int) -> dict:
    """Losses, and tokens per second without the time of validations, of a process that began after `first_step`."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    tokens = [entry["num_tokens"] for entry in history if "num_tokens" in entry and entry["step"] > first_step]
    validating = sum(entry.get("eval_runtime", 0) for entry in history if entry["step"] >= first_step)
    return {
        "train_loss_first": losses[0],
        "train_loss_last": losses[-1],
        "tokens_per_second": round(max(tokens, default=0) / max(seconds - validating, 1e-3), 1),
        "peak_memory_mb": peak_memory_mb(),
    }


def validation_results(pairs: Sequence[PreferencePair], differences: Sequence[float]) -> dict[str, float | dict | None]:
    """Loss and accuracy on the validation pairs (None without any), overall and by relation."""
    import torch

    if not pairs:
        return {"validation_loss": None, "validation_accuracy": None, "validation_by_relation": {}}
    return {
        "validation_loss": bradley_terry_loss(torch.tensor(differences)).mean().item(),
        "validation_accuracy": pair_metrics(differences)["accuracy"],
        "validation_by_relation": grouped_metrics([pair.relation for pair in pairs], differences),
    }


def validation_warnings(differences: Sequence[float], metrics: dict, history: Sequence[dict]) -> list[str]:
    """What speaks against the saved model, from its validation: ends of sentences that begin with "the saved model".

    `differences` and `metrics` are those of `write_results`, `history` tells the loss before training.
    """
    if not differences:
        return []
    if not any(differences):
        return [
            "gives every candidate the same reward, because no later step had a lower validation loss; train longer, "
            "on more questions or with --validation_fraction 0"
        ]
    found = worse_than_before(metrics["validation_loss"], history)
    if metrics["validation_accuracy"] <= 0.5:
        found.append(
            f"orders the validation pairs no better than chance: accuracy {metrics['validation_accuracy']:.4f} "
            f"({len(differences)} pairs); {ADVICE}"
        )
    return found


def worse_than_before(validation_loss: float, history: Sequence[dict]) -> list[str]:
    """The warning that a loss is above the one before training, if it is; see `validation_warnings`."""
    start = next((entry["eval_loss"] for entry in history if entry["step"] == 0 and "eval_loss" in entry), math.inf)
    if validation_loss <= start:
        return []
    figures = f"validation loss {validation_loss:.4f}, at the start {start:.4f}"
    return [f"is worse than before training: {figures}; {ADVICE}"]


# --- curves and card ------------------------------------------------------------------------------------------------


def draw_curves(history: Sequence[dict], curves: tuple[Curve, Curve], path: Path) -> None:
    """PNG: two curves over the steps."""
    with picture(path, [[curve.key for curve in curves]]) as axes:
        for curve in curves:
            _draw_curve(axes[curve.key], history, curve)


def _draw_curve(axis: "Axes", history: Sequence[dict], curve: Curve) -> None:
    """Training and validation over the steps, and what chance gives."""
    ends = {}
    for prefix, marks, name, colour in (("", "-", "training", COLOURS[0]), ("eval_", "o-", "validation", COLOURS[1])):
        key = prefix + curve.key
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axis.plot(*zip(*points, strict=True), marks, color=colour, markersize=4)
            ends[name] = (*points[-1], colour)
    if curve.chance is not None:
        steps = history[0]["step"], history[-1]["step"]
        axis.plot(steps, (curve.chance, curve.chance), color=GREY, linewidth=0.8)
        ends["chance"] = (steps[1], curve.chance, GREY)
    axis.set(xlabel="step", title=curve.label)
    axis.xaxis.get_major_locator().set_params(integer=True)
    label_ends(axis, ends)


def write_card(folder: Path, settings: TrainingSettings, data: dict, metrics: dict) -> None:
    """README.md of an adapter folder, with the hub's metadata. `data`: path and sha256 of the pair file."""
    from huggingface_hub import ModelCardData

    base = Path(settings.model_id).name
    metadata = ModelCardData(
        base_model=base,
        library_name="peft",
        pipeline_tag="text-classification",
        tags=["reward-model", "text-to-sql", "lora", "trl"],
        metrics=["accuracy"],
    )
    facts = {
        "base model": base,
        "trained on": f"{Path(data['path']).name} (sha256 {data['sha256']}…)",
        "pairs": f"{metrics['train_pairs']} training, {metrics['validation_pairs']} validation",
        **training_facts(settings, metrics),
        **_validation_facts(metrics),
    }
    length = settings.result_length
    result = f" with the first {length} characters of what executing it said" if length else ""
    text = CARD.format(name=folder.name, base=base, facts=fact_rows(facts), result=result, result_length=length)
    save_card(folder, metadata, text)


def training_facts(settings: LoraSettings, metrics: dict) -> dict[str, object]:
    """What a card says of how an adapter was trained."""
    return {
        "steps": f"{metrics['steps']}, kept: {metrics['kept_step']}",
        "LoRA": f"rank {settings.lora_r}, alpha {settings.lora_alpha}, dropout {settings.lora_dropout}, "
        f"on {settings.lora_targets}",
        "learning rate": settings.learning_rate,
        "training loss": f"{metrics['train_loss_first']:.4f} to {metrics['train_loss_last']:.4f}",
    }


def fact_rows(facts: dict[str, object]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in facts.items())


def save_card(folder: Path, metadata: "ModelCardData", text: str) -> None:
    """README.md of an adapter folder: a text below the hub's metadata."""
    from huggingface_hub import ModelCard

    with replacing(folder / "README.md") as file:
        file.write(str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}")))


def _validation_facts(metrics: dict) -> dict[str, str]:
    if metrics["validation_loss"] is None:
        return {"validation": "none"}
    groups = {"validation accuracy": (metrics["validation_accuracy"], metrics["validation_pairs"])} | {
        f"validation accuracy, {name}": (group["accuracy"], group["pairs"])
        for name, group in metrics["validation_by_relation"].items()
        if name
    }
    return {name: f"{accuracy:.4f} ({pairs} pairs)" for name, (accuracy, pairs) in groups.items()}
