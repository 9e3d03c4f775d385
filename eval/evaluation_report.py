"""What an evaluation leaves: tables for the terminal and as Markdown, and curves as PNG."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.files import replacing
from common.tables import Rows, aligned, markdown
from eval.best_of_n import FIRST, label
from eval.pair_report import BINS, GROUPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TitledRows = tuple[str, Rows]
PAIR_COLUMNS = ("pairs", "accuracy [95 %]", "AUC [95 %]", "mean margin", "ECE", "ties")


def interval(figure: dict[str, float | None]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f} [too few]"
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**figure)


# --- tables -----------------------------------------------------------------------------------------------------------


def pair_tables(pairs: dict) -> Iterator[TitledRows]:
    """Adapters and baselines; each adapter minus the one before."""
    rows = [["", *PAIR_COLUMNS]]
    for name, report in pairs["adapters"].items():
        means = [f"{report[figure]['value']:.3f}" for figure in ("mean_margin", "calibration_error")]
        intervals = [interval(report[figure]) for figure in ("accuracy", "auc")]
        rows.append([name, report["pairs"], *intervals, *means, report["ties"]])
    for name, report in pairs["baselines"].items():
        rows.append([name, report["pairs"], interval(report["accuracy"]), "", "", "", ""])
    yield "Preference pairs", rows
    if differences := pairs["differences"]:
        rows = [[name, interval(figure)] for name, figure in differences.items()]
        yield "Differences in pairwise accuracy", [["", "difference [95 %]"], *rows]


def group_tables(adapters: dict[str, dict]) -> Iterator[TitledRows]:
    """Accuracy of each adapter by properties of the pairs."""
    for group in GROUPS:
        reports = [report[f"by_{group}"] for report in adapters.values()]
        rows = [
            [value, found["pairs"], *(interval(report[value]["accuracy"]) for report in reports)]
            for value, found in reports[0].items()
        ]
        if rows:
            name = group.replace("_", " ")
            yield f"Pairwise accuracy by {name}", [[name, "pairs", *adapters], *rows]


def choice_tables(choice: dict) -> Iterator[TitledRows]:
    """Rules over N; one minus another."""
    numbers = [f"N = {number}" for number in choice["sizes"]]
    rows = [[label(way["choose"], way["adapter"]), *map(interval, way["ex"].values())] for way in choice["ways"]]
    rows.append([FIRST, interval(choice[FIRST]), *[""] * (len(numbers) - 1)])
    yield f"EX after choosing one of N, {choice['questions']} questions with gold", [["EX [95 %]", *numbers], *rows]
    rows = [[name, *map(interval, by_number.values())] for name, by_number in choice["differences"].items()]
    yield "Differences in EX", [["difference [95 %]", *numbers], *rows]


def main_tables(report: dict) -> Iterator[TitledRows]:
    if pairs := report.get("pairs"):
        yield from pair_tables(pairs)
    if choice := report.get("choice"):
        yield from choice_tables(choice)


def terminal_lines(report: dict) -> list[str]:
    """The short tables."""
    return [line for title, rows in main_tables(report) for line in ("", f"{title}:", *aligned(rows))]


def markdown_page(report: dict, picture: str) -> str:
    """The whole report as one page; `picture` is the file name of the curves."""
    manifest = report["manifest"]
    tables = list(main_tables(report))
    if pairs := report.get("pairs"):
        tables += group_tables(pairs["adapters"])
    lines = ["# Evaluation", "", f"`{' '.join(manifest['command'])}`, {manifest['started']}", ""]
    for title, rows in tables:
        lines += [f"## {title}", "", *markdown(rows), ""]
    return "\n".join([*lines, f"![curves]({picture})", ""])


# --- curves -----------------------------------------------------------------------------------------------------------


def draw(report: dict, path: Path) -> None:
    """PNG: of pairs, accuracy by distance gap, margins and calibration; of candidates, EX over N."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawings = []
    if pairs := report.get("pairs"):
        drawings += [(one, pairs["adapters"]) for one in (_draw_gaps, _draw_margins, _draw_calibration)]
    if choice := report.get("choice"):
        drawings.append((_draw_choice, choice))
    size = (5 * len(drawings), 4.2)
    figure, axes = pyplot.subplots(1, len(drawings), figsize=size, layout="constrained", squeeze=False)
    for axis, (draw_on, content) in zip(axes[0], drawings, strict=True):
        draw_on(axis, content)
        axis.legend(fontsize="x-small")
    with replacing(path, binary=True) as file:
        figure.savefig(file, dpi=120, format="png")
    pyplot.close(figure)


def _draw_gaps(axis: "Axes", adapters: dict) -> None:
    width = 0.8 / len(adapters)
    for number, (name, report) in enumerate(adapters.items()):
        groups = report["by_distance_gap"]
        at = np.arange(len(groups)) + width * (number + 0.5) - 0.4
        # a bound of None becomes NaN, which draws none
        figures = [[group["accuracy"][end] for group in groups.values()] for end in ("value", "low", "high")]
        heights, *bounds = np.array(figures, dtype=float)
        axis.bar(at, heights, width, yerr=np.abs(bounds - heights), capsize=2, label=name)
        axis.set_xticks(range(len(groups)), [f"{gap}\n({group['pairs']})" for gap, group in groups.items()])
    axis.axhline(0.5, color="grey", linewidth=0.8)
    axis.set(xlabel="distance gap (pairs)", ylabel="pairwise accuracy", ylim=(0, 1))


def _draw_margins(axis: "Axes", adapters: dict) -> None:
    for name, report in adapters.items():
        axis.hist(report["margins"], bins=40, histtype="step", label=name)
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set(xlabel="chosen minus rejected reward", ylabel="pairs")


def _draw_calibration(axis: "Axes", adapters: dict) -> None:
    axis.plot((0.5, 1), (0.5, 1), color="grey", linewidth=0.8)
    for name, report in adapters.items():
        points = [(part["confidence"], part["accuracy"]) for part in report["calibration"]]
        axis.plot(*zip(*points, strict=True), "o-", label=name)
    axis.set(xlabel=f"confidence, {BINS} bins", ylabel="pairwise accuracy")


def _draw_choice(axis: "Axes", choice: dict) -> None:
    from matplotlib import colormaps

    axis.set_prop_cycle(color=colormaps["tab20"].colors)  # there are more rules than the usual ten colours
    for way in choice["ways"]:
        values = [figure["value"] for figure in way["ex"].values()]
        marks = "o-" if way["adapter"] else "o--"
        axis.plot(choice["sizes"], values, marks, label=label(way["choose"], way["adapter"]))
    axis.set_xscale("log", base=2)
    axis.set_xticks(choice["sizes"], choice["sizes"])
    axis.set(xlabel="candidates N", ylabel=f"execution accuracy, {choice['questions']} questions")
    axis.grid(alpha=0.3)
