"""Figures for the cards, from a report of evaluate.py: as tables, and in the hub's own form.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.tables import markdown
from reward.hub.names import Names, Source

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


@dataclass(frozen=True)
class Figures:
    """Accuracies with their intervals, by what they are of: of the test pairs, and of choosing one of N queries.

    Those that are `own` are the adapter's, the others stand beside it; `questions` and `candidates` (N) are 0 where
    nothing was chosen.
    """

    pairs: dict[str, dict]
    choice: dict[str, dict]
    own: frozenset[str]
    questions: int
    candidates: int


OWN = "this model"
BESIDE = {"none": "the untrained base model"}


def figures_of(report: Mapping, adapter: str) -> Figures:
    """Those of an adapter, as the report calls it. Raises KeyError or TypeError where the report is another."""
    called = BESIDE | {adapter: OWN}
    of_pairs = {called[name]: one["accuracy"] for name, one in report["pairs"]["adapters"].items() if name in called}
    of_pairs |= {name: one["accuracy"] for name, one in report["pairs"]["baselines"].items()}
    choice = report.get("choice") or {"ways": [], "sizes": [0], "questions": 0}
    most = choice["sizes"][-1]
    ways = {(way["choose"], way["adapter"]): way["ex"][str(most)] for way in choice["ways"]}
    own = {rule for rule, name in ways if name == adapter}
    of_choice = {rule: ex for (rule, name), ex in ways.items() if name in ("", adapter)}
    return Figures(of_pairs, of_choice, frozenset(own | {OWN}), choice["questions"], most)


def eval_results(figures: Figures, names: Names, source: Source) -> list["EvalResult"]:
    """The adapter's own figures in the hub's form."""
    from huggingface_hub import EvalResult

    pairs = {
        "task_type": "text-classification",
        "task_name": "Ordering pairs of SQL queries",
        "dataset_type": names.pairs,
        "dataset_name": f"Preference pairs on {source.name}",
        "dataset_split": "test",
        "metric_type": "accuracy",
        "metric_name": "Pairwise accuracy",
        "metric_value": figures.pairs[OWN]["value"],
    }
    chosen = [
        {
            "task_type": "text-generation",
            "task_name": "Text-to-SQL, choosing among queries of a generator",
            "dataset_type": source.name.lower().replace(" ", "-"),
            "dataset_name": f"{figures.questions} held-out questions on {source.name}",
            "metric_type": "execution_accuracy",
            "metric_name": f"Execution accuracy, one of {figures.candidates} by {rule}",
            "metric_value": ex["value"],
        }
        for rule, ex in figures.choice.items()
        if rule in figures.own
    ]
    return [EvalResult(**one) for one in (pairs, *chosen)]


def results_text(figures: Figures) -> str:
    """Tables of all figures, as Markdown."""
    lines = markdown([("ordering the test pairs", "accuracy [95 %]"), *map(_row, figures.pairs.items())])
    if figures.choice:
        heading = f"choosing one of {figures.candidates} queries, {figures.questions} questions"
        rows = [(f"{rule} (this model)" if rule in figures.own else rule, ex) for rule, ex in figures.choice.items()]
        lines += ["", *markdown([(heading, "execution accuracy [95 %]"), *map(_row, rows)])]
    return "\n".join(lines)


def _row(named: tuple[str, Mapping]) -> tuple[str, str]:
    name, figure = named
    if figure.get("low") is None:
        return name, f"{figure['value']:.3f}"
    return name, f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
