"""What a question costs at each size, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from tests.benchmarks.store.contestant import KINDS

# Readable by colour-blind eyes (Okabe and Ito), the same contestant always the same.
_COLOURS = {
    "limit": "#000000",
    "product": "#D55E00",
    "langchain-postgres": "#0072B2",
    "llama-index": "#009E73",
    "haystack": "#CC79A7",
}


def write(result: dict[str, Any], path: Path) -> None:
    """One panel per width and kind: p50 in milliseconds with one client against the number of chunks."""
    widths = sorted({size["dimensions"] for size in result["sizes"]})
    kinds = KINDS[:3]
    figure, panels = plt.subplots(
        len(widths), len(kinds), figsize=(4.2 * len(kinds), 3.6 * len(widths) + 0.8), squeeze=False, sharey="row"
    )
    for row, width in enumerate(widths):
        sizes = sorted(
            (size for size in result["sizes"] if size["dimensions"] == width), key=lambda size: size["chunks"]
        )
        for column, kind in enumerate(kinds):
            _panel(panels[row][column], sizes, kind)
            panels[row][column].set_title(f"{kind}, {width} dimensions", fontsize=10)
        panels[row][0].set_ylabel("p50, ms")
    named = {
        label: line for panel in panels.flat for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="lower center", ncols=len(named), frameon=False)
    figure.tight_layout(rect=(0, 0.5 / figure.get_figheight(), 1, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panel(panel: Any, sizes: list[dict[str, Any]], kind: str) -> None:
    for name, colour in _COLOURS.items():
        points = [
            (size["chunks"], size["queries"][name][kind]["p50"])
            for size in sizes
            if kind in size["queries"].get(name, {})
        ]
        if points:
            panel.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
    if kind == "hybrid":
        bare = [
            (size["chunks"], size["queries"]["limit"]["dense"]["p50"]) for size in sizes if "limit" in size["queries"]
        ]
        panel.plot(*zip(*bare, strict=True), linestyle=":", marker="o", color=_COLOURS["limit"], label="limit (dense)")
    counts = sorted({size["chunks"] for size in sizes})
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(FixedLocator([0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    panel.set_xticks(counts, [f"{count:,}" for count in counts])
    panel.set_xticks([], minor=True)
    panel.set_xlabel("chunks")
    panel.grid(visible=True, which="major", alpha=0.3)
