"""What a question costs and what it finds while the collection grows, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import ScalarFormatter

# Readable by colour-blind eyes (Okabe and Ito).
_COLOURS = {
    "dense": "#0072B2",
    "hybrid": "#D55E00",
    "lexical": "#009E73",
    "dense 1 %": "#56B4E9",
    "hybrid 1 %": "#E69F00",
}


def write(result: dict[str, Any], path: Path) -> None:
    """p50 (solid) and p95 (dotted) in milliseconds, and the share of the exact ten, against the number of chunks."""
    sizes = result["sizes"]
    counts = [size["chunks"] for size in sizes]
    figure, (cost, quality) = plt.subplots(1, 2, figsize=(11, 4.4))
    for name, colour in _COLOURS.items():
        series = [size["queries"][name] for size in sizes]
        cost.plot(counts, [one["p50"] for one in series], marker="o", color=colour, label=name)
        cost.plot(counts, [one["p95"] for one in series], linestyle=":", color=colour)
        quality.plot(counts, [one["overlap"] for one in series], marker="o", color=colour)
    cost.set_title("p50 (dotted: p95), one client", fontsize=10)
    cost.set_ylabel("ms")
    cost.set_yscale("log")
    for axis in (cost.yaxis, quality.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(ScalarFormatter())
    cost.tick_params(axis="y", which="minor", labelsize=7)
    quality.set_title("share of the exact ten", fontsize=10)
    quality.set_ylim(top=1.005)
    for panel in (cost, quality):
        panel.set_xscale("log")
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.set_xticks([], minor=True)
        panel.set_xlabel("chunks")
        panel.grid(visible=True, which="major", alpha=0.3)
    figure.legend(loc="lower center", ncols=len(_COLOURS), frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)
