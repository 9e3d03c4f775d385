"""What a training run leaves beside its adapter: numbers, curves and the model card."""

import math
import resource
from collections.abc import Sequence
from pathlib import Path

import torch

from common.files import replacing
from reward.metrics import bradley_terry_loss, grouped_metrics, pair_metrics

CARD = """# {name}

A reward model for text-to-SQL: given a task prompt (schema, evidence, question) and an SQL query, one number, higher
for queries that are right or nearer to a right one. LoRA adapter and score head (in float32) of `{base}`, trained with
the pairwise loss of Bradley and Terry on pairs of queries from revision trees.

| | |
|---|---|
{facts}

All settings and versions: `manifest.json`. Curves: `training_curve.png`, numbers: `metrics.json`.

## Use

From the project's folder, with the base model in `{base}`:

```python
from reward.model import load_reward_model, score

model, tokenizer = load_reward_model("{base}", "{name}")
[rewards] = score(model, tokenizer, [(prompt, ["SELECT 1", "SELECT 2"])])
```

As a plain sequence classification model for other programs:
`python -m reward.export --adapter {name} --base_model {base} --output {name}-merged`.

Rewards order queries of one prompt; across prompts they are not comparable.
"""


def peak_memory_mb() -> int:
    """The most memory (MB = 2**20 bytes) that tensors had on the GPU so far; without one, that the process had."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10  # KiB


def history_metrics(history: Sequence[dict], seconds: float, first_step: int) -> dict:
    """Losses, and tokens per second without the time of validations, of a run that began after `first_step`."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    tokens = [entry["num_tokens"] for entry in history if "num_tokens" in entry and entry["step"] > first_step]
    validating = sum(entry.get("eval_runtime", 0) for entry in history if entry["step"] >= first_step)
    return {
        "train_loss_first": losses[0],
        "train_loss_last": losses[-1],
        "tokens_per_second": round(max(tokens, default=0) / max(seconds - validating, 1e-3), 1),
        "peak_memory_mb": peak_memory_mb(),
    }


def validation_results(differences: Sequence[float], margins: Sequence[float], relations: Sequence[str]) -> dict:
    """Loss and accuracy of the kept model on the validation pairs (None without any), overall and by relation."""
    if not differences:
        return {"validation_loss": None, "validation_accuracy": None, "validation_by_relation": {}}
    values = torch.tensor(differences)
    loss = bradley_terry_loss(values, torch.zeros_like(values), torch.tensor(margins)).mean().item()
    return {
        "validation_loss": loss,
        "validation_accuracy": pair_metrics(differences)["accuracy"],
        "validation_by_relation": grouped_metrics(relations, differences),
    }


def doubts(differences: Sequence[float], metrics: dict, history: Sequence[dict]) -> list[str]:
    """What speaks against the kept model, from its validation: sentences that go on after "the kept model".

    `differences` and `metrics` (of `validation_results`) are those of the kept model, `history` tells where it began.
    """
    if not differences:
        return []
    advice = "train longer, on more questions, or with another --learning_rate"
    if not any(differences):
        return [
            "gives every candidate the same reward, because no later step had a lower validation loss; train longer, "
            "on more questions or with --validation_fraction 0"
        ]
    found = []
    start = next((entry["eval_loss"] for entry in history if entry["step"] == 0 and "eval_loss" in entry), math.inf)
    if metrics["validation_loss"] > start:
        found.append(
            f"is worse than before training: validation loss {metrics['validation_loss']:.4f}, at the start "
            f"{start:.4f}; {advice}"
        )
    if metrics["validation_accuracy"] <= 0.5:
        found.append(
            f"orders the validation pairs no better than chance: accuracy {metrics['validation_accuracy']:.4f} "
            f"({len(differences)} pairs); {advice}"
        )
    return found


def draw_curves(history: Sequence[dict], differences: Sequence[float], path: Path) -> None:
    """PNG: loss and pairwise accuracy over the steps, and the validation pairs' reward differences if there are any."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, 3 if differences else 2, figsize=(15 if differences else 10, 4), layout="constrained"
    )
    for axis, key, label, chance in (
        (axes[0], "loss", "Bradley-Terry loss", 0.6931),
        (axes[1], "accuracy", "pairwise accuracy", 0.5),
    ):
        for prefix, style, name in (("", "-", "training"), ("eval_", "o--", "validation")):
            points = [(entry["step"], entry[prefix + key]) for entry in history if prefix + key in entry]
            if points:
                axis.plot(*zip(*points, strict=True), style, label=name)
        axis.axhline(chance, color="grey", linewidth=0.8, label="chance")
        axis.set(xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend()
    if differences:
        axes[2].hist(differences, bins=40)
        axes[2].axvline(0, color="grey", linewidth=0.8)
        axes[2].set(xlabel="chosen minus rejected reward", ylabel="validation pairs")
    with replacing(path, binary=True) as file:
        figure.savefig(file, dpi=120, format="png")
    pyplot.close(figure)


def write_card(folder: Path, base: str, data: dict, settings, metrics: dict) -> None:
    """README.md of an adapter folder, with the hub's metadata. `data`: path and sha256 of the pair file."""
    from huggingface_hub import ModelCard, ModelCardData

    metadata = ModelCardData(
        base_model=Path(base).name,
        library_name="peft",
        pipeline_tag="text-classification",
        tags=["reward-model", "text-to-sql", "lora", "trl"],
        metrics=["accuracy"],
    )
    facts = {
        "base model": Path(base).name,
        "trained on": f"{Path(data['path']).name} (sha256 {data['sha256']}…)",
        "pairs": f"{metrics['train_pairs']} training, {metrics['validation_pairs']} validation",
        "steps": f"{metrics['steps']}, kept: {metrics['kept_step']}",
        "LoRA": f"rank {settings.lora_r}, alpha {settings.lora_alpha}, dropout {settings.lora_dropout}, "
        f"on {settings.lora_targets}",
        "learning rate": settings.learning_rate,
        "training loss": f"{metrics['train_loss_first']:.4f} to {metrics['train_loss_last']:.4f}",
        **_validation_facts(metrics),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    text = CARD.format(name=folder.name, base=Path(base).name, facts=table)
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
