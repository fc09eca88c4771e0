"""The picture of a benchmark: a panel of bars for each section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from tests.benchmarks.reporting import Section, figure

OURS, OTHERS = "#2a6fbb", "#b8bec6"
INCHES_A_PANEL = 0.7
INCHES_A_BAR = 0.3


def plot(file: Path, around: Mapping[str, str], sections: Sequence[Section]) -> None:
    """Draw what the sections show; `crdbexport` stands out."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [INCHES_A_PANEL + INCHES_A_BAR * len(section.bars) for section in sections]
    drawing, panels = pyplot.subplots(
        len(sections), figsize=(8, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for panel, section in zip(panels[:, 0], sections, strict=True):
        _draw(panel, section)
    drawing.supxlabel(f"{around['date']} · {around['machine']}", fontsize=6)
    drawing.savefig(file, dpi=150)
    pyplot.close(drawing)


def _draw(panel: Any, section: Section) -> None:
    names = list(section.bars)
    colours = [OURS if name.startswith("crdbexport") else OTHERS for name in names]
    bars = panel.barh(names, list(section.bars.values()), color=colours)
    panel.bar_label(bars, [figure(value) for value in section.bars.values()], padding=3, fontsize=8)
    panel.invert_yaxis()
    panel.margins(x=0.12)
    panel.set_title(f"{section.title} ({section.unit})", loc="left", fontsize=9)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
