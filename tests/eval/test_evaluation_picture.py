"""The picture of an evaluation: few lines with labels, and nothing that too few pairs or questions would draw."""

import numpy as np
import pytest

from common.preference import PreferencePair, user_prompt
from eval.best_of_n import Candidates, choice_report
from eval.evaluation_picture import LINES, draw, left_out, panel_rows
from eval.evaluation_report import markdown_page, terminal_lines
from eval.pair_report import pair_report

MANIFEST = {"command": ["evaluate.py"], "started": "now"}


def choice(candidates: int, adapters: int = 1) -> dict:
    """Of ten questions with so many candidates, every third of which is right."""
    right = np.arange(candidates) % 3 == 0
    known = [Candidates(np.full(candidates, 2), np.cumsum(~right), right.astype(float), right + 0.0)] * 10
    return choice_report(known, {f"some/where/adapter-{number}": known for number in range(adapters)})


def pair_figures(count: int, bins: int) -> dict:
    """Of so many pairs, each of a question, whose rewards differ by 0, 1, … in turn."""
    pairs = [
        PreferencePair(user_prompt(str(number)), "SELECT 1", "SELECT 2", number, db_id="shop", chosen_dist=0)
        for number in range(count)
    ]
    rewards = {(pair.prompt, pair.rejected): 0.0 for pair in pairs}
    rewards |= {(pair.prompt, pair.chosen): pair.question_id % bins * (-1) ** (pair.question_id % 7) for pair in pairs}
    return pair_report(pairs, {"none": rewards, "some/where/adapter": rewards})


@pytest.mark.parametrize("adapters", [1, 7])
def test_choosing_has_five_lines_with_labels(adapters, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    draw({"choice": choice(8, adapters)}, tmp_path / "report.png")
    (axis,) = figures[0].axes
    labels = [text.get_text().split()[0] for text in axis.texts]
    assert labels == list(LINES) and len(axis.lines) == 5
    heights = sorted(text.xy[1] for text in axis.texts)
    assert min(np.diff(heights)) > 0.05 * np.ptp(axis.get_ylim())
    assert f"adapter-{adapters - 1})" in axis.get_xlabel() and axis.get_legend() is None
    assert "10 questions" in axis.get_title(loc="left")


def test_panels_by_what_there_is():
    many, few = pair_figures(600, bins=5), pair_figures(12, bins=2)
    assert panel_rows({"pairs": many, "choice": choice(8)}) == [["choice"] * 2, ["accuracy", "calibration"]]
    assert panel_rows({"pairs": pair_figures(60, bins=2), "choice": None}) == [["accuracy"] * 2]
    assert panel_rows({"pairs": few, "choice": choice(2)}) == []
    assert panel_rows({"choice": None}) == [] and not left_out({"choice": None})


def test_what_is_left_out_is_named_and_an_old_picture_does_not_stay(tmp_path):
    report = {"manifest": MANIFEST, "pairs": pair_figures(12, bins=2), "choice": choice(2)}
    path = tmp_path / "report.png"
    path.write_bytes(b"old")
    draw(report, path)
    assert not path.exists()
    page = markdown_page(report, path.name)
    assert "report.png" not in page
    for said in (page, "\n".join(terminal_lines(report))):
        assert [line.split(" (")[0] for line in said.splitlines() if line.startswith("not in the picture")] == [
            "not in the picture: execution accuracy over N",
            "not in the picture: calibration",
            "not in the picture: pairwise accuracy by distance gap",
        ]


def test_a_picture_of_everything(tmp_path):
    report = {"manifest": MANIFEST, "pairs": pair_figures(600, bins=5), "choice": choice(8)}
    draw(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    page = markdown_page(report, "report.png")
    assert "![curves](report.png)" in page and "not in the picture" not in page
