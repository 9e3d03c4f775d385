"""What an evaluation leaves in words: tables for the terminal and as Markdown."""

from collections.abc import Iterator

from common.tables import Rows, aligned, markdown
from eval.best_of_n import FIRST, label
from eval.evaluation_picture import left_out, panel_rows
from eval.pair_report import GROUPS

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
    """The short tables, and what the picture does not show."""
    lines = [line for title, rows in main_tables(report) for line in ("", f"{title}:", *aligned(rows))]
    return [*lines, *picture_lines(report)]


def picture_lines(report: dict) -> list[str]:
    """What is left out of the picture, and why."""
    return [f"not in the picture: {name} ({why})" for name, why in left_out(report).items()]


def markdown_page(report: dict, picture: str) -> str:
    """The whole report as one page; `picture` is the file name of the curves, if there are any to draw."""
    manifest = report["manifest"]
    tables = list(main_tables(report))
    if pairs := report.get("pairs"):
        tables += group_tables(pairs["adapters"])
    lines = ["# Evaluation", "", f"`{' '.join(manifest['command'])}`, {manifest['started']}", ""]
    for title, rows in tables:
        lines += [f"## {title}", "", *markdown(rows), ""]
    lines += [f"![curves]({picture})", ""] * bool(panel_rows(report))
    return "\n".join([*lines, *picture_lines(report), ""])
