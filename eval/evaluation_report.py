"""What an evaluation leaves: tables for the terminal and as Markdown, and curves as PNG."""

from pathlib import Path

import numpy as np

from common.files import replacing
from common.tables import aligned, markdown
from eval.pair_report import BINS, GROUPS


def interval(figure: dict[str, float | None]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f} [too few]"
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**figure)


# --- tables -----------------------------------------------------------------------------------------------------------


def pair_rows(pairs: dict) -> list[list[str]]:
    """Adapters and baselines: accuracy and the other figures."""
    rows = [["", "pairs", "accuracy [95 %]", "AUC [95 %]", "mean margin", "ECE", "ties"]]
    for name, report in pairs["adapters"].items():
        rows.append(
            [
                name,
                str(report["pairs"]),
                interval(report["accuracy"]),
                interval(report["auc"]),
                f"{report['mean_margin']['value']:.3f}",
                f"{report['calibration_error']['value']:.3f}",
                str(report["ties"]),
            ]
        )
    for name, report in pairs["baselines"].items():
        rows.append([name, str(report["pairs"]), interval(report["accuracy"]), "", "", "", ""])
    return rows


def choice_rows(choice: dict) -> list[list[str]]:
    """Ways of choosing over N."""
    rows = [["EX [95 %]", *(f"N = {number}" for number in choice["sizes"])]]
    for way in choice["ways"]:
        name = f"{way['choose']} ({way['adapter']})" if way["adapter"] else way["choose"]
        rows.append([name, *(interval(figure) for figure in way["ex"].values())])
    return [*rows, ["first", interval(choice["first"]), *[""] * (len(choice["sizes"]) - 1)]]


def difference_rows(differences: dict[str, dict]) -> list[list[str]]:
    return [["", "difference [95 %]"], *([name, interval(figure)] for name, figure in differences.items())]


def choice_difference_rows(choice: dict) -> list[list[str]]:
    """Ways of choosing, one less another, over N."""
    return [
        ["difference [95 %]", *(f"N = {number}" for number in choice["sizes"])],
        *([name, *map(interval, by_number.values())] for name, by_number in choice["differences"].items()),
    ]


def group_rows(adapters: dict[str, dict], group: str) -> list[list[str]]:
    """Accuracy of each adapter by one property of the pairs."""
    key = f"by_{group.replace(' ', '_')}"
    values = next(iter(adapters.values()))[key]
    return [
        [group, "pairs", *adapters],
        *(
            [value, str(found["pairs"]), *(interval(report[key][value]["accuracy"]) for report in adapters.values())]
            for value, found in values.items()
        ),
    ]


def terminal_lines(report: dict) -> list[str]:
    """The short tables."""
    lines = []
    if pairs := report.get("pairs"):
        lines += aligned(pair_rows(pairs))
    if choice := report.get("choice"):
        lines += ["", f"{choice['questions']} questions with gold; EX after choosing one of N:"]
        lines += [*aligned(choice_rows(choice)), "", *aligned(choice_difference_rows(choice))]
    return lines


def markdown_page(report: dict, picture: str) -> str:
    """The whole report as one page; `picture` is the file name of the curves."""
    manifest = report["manifest"]
    lines = ["# Evaluation", "", f"`{' '.join(manifest['command'])}`, {manifest['started']}", ""]
    if pairs := report.get("pairs"):
        lines += ["## Preference pairs", "", *markdown(pair_rows(pairs)), ""]
        if pairs["differences"]:
            lines += [*markdown(difference_rows(pairs["differences"])), ""]
        for group in GROUPS:
            rows = group_rows(pairs["adapters"], group)
            if len(rows) > 1:
                lines += [f"Accuracy by {group}:", "", *markdown(rows), ""]
    if choice := report.get("choice"):
        lines += ["## Choosing among candidates", "", f"Execution accuracy over {choice['questions']} questions:", ""]
        lines += [*markdown(choice_rows(choice)), "", *markdown(choice_difference_rows(choice)), ""]
    return "\n".join([*lines, f"![curves]({picture})", ""])


# --- curves -----------------------------------------------------------------------------------------------------------


def draw(report: dict, path: Path) -> None:
    """PNG: of pairs, accuracy by distance gap, margins and calibration; of candidates, EX over N."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pairs, choice = report.get("pairs"), report.get("choice")
    count = (3 if pairs else 0) + bool(choice)
    figure, axes = pyplot.subplots(1, count, figsize=(5 * count, 4.2), layout="constrained", squeeze=False)
    left = list(axes[0])
    if pairs:
        _draw_gaps(left.pop(0), pairs["adapters"])
        _draw_margins(left.pop(0), pairs["adapters"])
        _draw_calibration(left.pop(0), pairs["adapters"])
    if choice:
        _draw_choice(left.pop(0), choice)
    with replacing(path, binary=True) as file:
        figure.savefig(file, dpi=120, format="png")
    pyplot.close(figure)


def _draw_gaps(axis, adapters: dict) -> None:
    for place, (name, report) in enumerate(adapters.items()):
        groups = report["by_distance_gap"]
        values = [group["accuracy"] for group in groups.values()]
        at = np.arange(len(groups)) + 0.8 * (place + 0.5) / len(adapters) - 0.4
        heights = [value["value"] for value in values]
        # NaN where there is no interval, which draws none
        bounds = [[np.nan if value[end] is None else value[end] for value in values] for end in ("low", "high")]
        errors = np.abs(np.subtract(bounds, heights))
        axis.bar(at, heights, 0.8 / len(adapters), yerr=errors, capsize=2, label=name)
        axis.set_xticks(range(len(groups)), [f"{gap}\n({group['pairs']})" for gap, group in groups.items()])
    axis.axhline(0.5, color="grey", linewidth=0.8)
    axis.set(xlabel="distance gap (pairs)", ylabel="pairwise accuracy", ylim=(0, 1))
    axis.legend(fontsize="small")


def _draw_margins(axis, adapters: dict) -> None:
    for name, report in adapters.items():
        axis.hist(report["margins"], bins=40, histtype="step", label=name)
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set(xlabel="chosen minus rejected reward", ylabel="pairs")
    axis.legend(fontsize="small")


def _draw_calibration(axis, adapters: dict) -> None:
    axis.plot((0.5, 1), (0.5, 1), color="grey", linewidth=0.8)
    for name, report in adapters.items():
        points = [(part["confidence"], part["accuracy"]) for part in report["calibration"]]
        axis.plot(*zip(*points, strict=True), "o-", label=name)
    axis.set(xlabel=f"confidence, {BINS} bins", ylabel="pairwise accuracy")
    axis.legend(fontsize="small")


def _draw_choice(axis, choice: dict) -> None:
    from matplotlib import colormaps

    axis.set_prop_cycle(color=colormaps["tab20"].colors)  # there are more ways than the usual ten colours
    for way in choice["ways"]:
        name = f"{way['choose']} ({way['adapter']})" if way["adapter"] else way["choose"]
        values = [figure["value"] for figure in way["ex"].values()]
        axis.plot(choice["sizes"], values, "o-" if way["adapter"] else "o--", label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(choice["sizes"], choice["sizes"])
    axis.set(xlabel="candidates N", ylabel=f"execution accuracy, {choice['questions']} questions")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="x-small")
