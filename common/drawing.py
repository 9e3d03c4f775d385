"""What all pictures have in common: a grid of panels at the width of a page, colours, labels at the ends of lines."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from common.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# told apart with any kind of colour vision: M. Okabe, K. Ito, "Color Universal Design"; without those too pale on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
GREY = "#666666"
ROW = (8.2, 3.3)  # inches of a row of panels: at the width of a page, letters are as large as those of its text
LABEL_HEIGHT = 0.08  # of a panel's
STYLE = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "savefig.facecolor": "white",  # a page may be dark
}


@contextlib.contextmanager
def picture(path: str | os.PathLike, rows: Sequence[Sequence[str]]) -> Iterator[Mapping[str, "Axes"]]:
    """Panels to draw on, by name, in `rows` of as many columns; PNG at `path` when the block ends well."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        size = (ROW[0], ROW[1] * len(rows))
        figure, axes = pyplot.subplot_mosaic([list(row) for row in rows], figsize=size, layout="constrained")
        try:
            yield axes
            with replacing(path, binary=True) as file:
                figure.savefig(file, dpi=150, format="png")
        finally:
            pyplot.close(figure)


def label_ends(axis: "Axes", ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Write right of each line, in its colour, what it is: label -> (x, y, colour). Last, when the limits stand."""
    low, high = axis.get_ylim()
    heights = spread([y for _, y, _ in ends.values()], LABEL_HEIGHT * (high - low))
    right = max(x for x, _, _ in ends.values())
    for (label, (_, _, colour)), height in zip(ends.items(), heights, strict=True):
        place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        axis.annotate(label, (right, height), color=colour, **place)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights at least `gap` apart in the order of those given, with the least sum of squared moves."""
    import numpy as np
    from scipy.optimize import isotonic_regression

    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    moved = np.empty(len(heights))
    moved[order] = isotonic_regression(np.asarray(heights, dtype=float)[order] - steps).x + steps
    return moved.tolist()
