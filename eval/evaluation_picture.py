"""The picture of an evaluation: only panels that say something with as many pairs and questions as there are."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.drawing import COLOURS, GREY, label_ends, picture
from eval.adapter_prompts import UNTRAINED
from eval.best_of_n import CHOICES, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 3  # so many make a curve
PAIRS_OF_A_GROUP = 20  # with fewer, its accuracy is mostly chance
PAIRS_OF_A_BIN = 100  # they are of few questions, which go wrong together; without intervals nobody would see it
ADAPTERS = len(COLOURS)  # drawn at most, the last ones
REWARD, VOTE = CHOICES[0], "executes_vote"  # the best rules with and without rewards
LINES = {  # of choosing: rule -> colour
    "oracle": GREY,
    REWARD: COLOURS[1],
    VOTE: COLOURS[0],
    "majority_vote": COLOURS[2],
    "random": COLOURS[3],
}
PANELS = {
    "choice": "execution accuracy over N",
    "accuracy": "pairwise accuracy by distance gap",
    "calibration": "calibration",
}


def left_out(report: dict) -> dict[str, str]:
    """The panels for which the report holds something, but too little: what they would show -> why not."""
    found = {}
    if (choice := report.get("choice")) and len(choice["sizes"]) < POINTS:
        found["choice"] = f"fewer than {POINTS} numbers of candidates"
    if report.get("pairs") and not any(map(calibration_points, drawn_adapters(report).values())):
        found["calibration"] = f"fewer than {POINTS} bins with {PAIRS_OF_A_BIN} pairs or more"
    if report.get("pairs") and not groups_of(drawn_adapters(report)):
        found["accuracy"] = f"fewer than {PAIRS_OF_A_GROUP} pairs, or all of one question"
    return {PANELS[name]: why for name, why in found.items()}


def panel_rows(report: dict) -> list[list[str]]:
    """The panels to draw, in rows of two columns: choosing, which counts, over both."""
    held = [["choice"] * bool(report.get("choice")), ["accuracy", "calibration"] * bool(report.get("pairs"))]
    without = left_out(report)
    rows = [[name for name in row if PANELS[name] not in without] for row in held]
    return [row * 2 if len(row) == 1 else row for row in rows if row]


def draw(report: dict, path: Path) -> None:
    """PNG: EX over N of choosing; accuracy by distance gap and calibration of pairs. None where all is left out."""
    rows = panel_rows(report)
    if not rows:
        path.unlink(missing_ok=True)  # of an earlier report
        return
    with picture(path, rows) as axes:
        if "choice" in axes:
            draw_choice(axes["choice"], report["choice"])
        if "accuracy" in axes:
            draw_accuracy(axes["accuracy"], drawn_adapters(report))
        if "calibration" in axes:
            draw_calibration(axes["calibration"], drawn_adapters(report))


# --- choosing ---------------------------------------------------------------------------------------------------------


def draw_choice(axis: "Axes", choice: dict) -> None:
    """EX of LINES over N, of rewards those of the last adapter; the interval of REWARD alone, which others lie upon."""
    last = choice["ways"][-1]["adapter"]
    ways = {way["choose"]: list(way["ex"].values()) for way in choice["ways"] if way["adapter"] in ("", last)}
    sizes = choice["sizes"]
    ends = {}
    for rule, colour in LINES.items():
        values, lows, highs = ([figure[end] for figure in ways[rule]] for end in ("value", "low", "high"))
        axis.plot(sizes, values, "o-", color=colour, markersize=4)
        if rule == REWARD and None not in lows:
            axis.fill_between(sizes, lows, highs, color=colour, alpha=0.15, linewidth=0)
        ends[f"{rule} {values[-1]:.2f}"] = (sizes[-1], values[-1], colour)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, sizes)
    difference = choice["differences"][f"{label(REWARD, last)} minus {VOTE}"][str(sizes[-1])]
    axis.set(
        xlabel=f"N (rewards of {short_name(last)})",
        ylabel="execution accuracy",
        title=f"Choosing one of N candidates, {choice['questions']} questions (shaded: 95 % of {REWARD})\n"
        f"{REWARD} minus {VOTE} at N = {sizes[-1]}: {signed(difference)}",
    )
    label_ends(axis, ends)


def signed(figure: dict[str, float | None]) -> str:
    """A difference with its sign and interval."""
    bounds = "too few" if figure["low"] is None else "{low:+.3f}, {high:+.3f}".format(**figure)
    return f"{figure['value']:+.3f} [{bounds}]"


# --- pairs ------------------------------------------------------------------------------------------------------------


def drawn_adapters(report: dict) -> dict[str, dict]:
    return dict(list(report["pairs"]["adapters"].items())[-ADAPTERS:])


def short_name(adapter: str) -> str:
    return "the untrained base" if adapter == UNTRAINED else Path(adapter).name


def groups_of(adapters: dict[str, dict]) -> dict[str, list[dict]]:
    """All pairs and those of each distance gap, where they are enough: name with count -> accuracy of each adapter."""
    reports = list(adapters.values())
    found = {f"all {reports[0]['pairs']} pairs": reports}
    gaps = reports[0]["by_distance_gap"]
    for gap in gaps if len(gaps) > 1 else ():
        groups = [report["by_distance_gap"][gap] for report in reports]
        found[f"gap {gap} ({groups[0]['pairs']})"] = groups
    return {
        name: [group["accuracy"] for group in groups]
        for name, groups in found.items()
        if groups[0]["pairs"] >= PAIRS_OF_A_GROUP and groups[0]["accuracy"]["low"] is not None
    }


def draw_accuracy(axis: "Axes", adapters: dict[str, dict]) -> None:
    """A row of points with intervals for each group, one of each adapter."""
    groups = groups_of(adapters)
    offsets = 0.2 * (np.arange(len(adapters)) - (len(adapters) - 1) / 2)
    for number, adapter in enumerate(adapters):
        figures = [accuracies[number] for accuracies in groups.values()]
        values, lows, highs = (np.array([figure[end] for figure in figures]) for end in ("value", "low", "high"))
        axis.errorbar(
            values,
            np.arange(len(groups)) + offsets[number],
            xerr=[values - lows, highs - values],
            fmt="o",
            color=COLOURS[number],
            label=short_name(adapter),
        )
    axis.axvline(0.5, color=GREY, linewidth=0.8)
    axis.set_yticks(range(len(groups)), groups)
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set(title="Preference pairs", xlabel="share in the right order", xlim=(0, 1))
    axis.figure.legend(loc="outside lower center", ncols=2, frameon=False)


def calibration_points(report: dict) -> list[tuple[float, float]]:
    """(confidence, accuracy) of the bins with enough pairs; none where these make no curve."""
    enough = [part for part in report["calibration"] if part["share"] * report["pairs"] >= PAIRS_OF_A_BIN - 0.5]
    return [(part["confidence"], part["accuracy"]) for part in enough] if len(enough) >= POINTS else []


def draw_calibration(axis: "Axes", adapters: dict[str, dict]) -> None:
    axis.plot((0.5, 1), (0.5, 1), color=GREY, linewidth=0.8)
    for number, report in enumerate(adapters.values()):
        if points := calibration_points(report):
            axis.plot(*zip(*points, strict=True), "o-", color=COLOURS[number], markersize=4)
    axis.set(title="Calibration", xlabel="confidence in an order", ylabel="share in the right order")
