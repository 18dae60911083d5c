"""Draws docs/images/bench.svg. Run by the environment that has matplotlib:

python plot.py DATA.json OUT.svg
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

COLOURS = {"direct": "#9e9e9e", "nginx": "#5b8c5a", "fastapi": "#c98a2b", "weir": "#2b5fc9"}
BARS = ("cold start", "memory", "CPU per chunk")


def draw(data: dict[str, Any], out: Path) -> None:
    mpl.rcParams.update({"font.size": 9, "svg.hashsalt": "weir", "axes.spines.top": False})
    mpl.rcParams["axes.spines.right"] = False
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.8), width_ratios=[1, 1, 1, 1.7])
    told = {one["name"]: one for one in data["figures"]}
    for axis, name in zip(axes, BARS, strict=False):
        cells = told[name]["cells"]
        names = [data["columns"][target] for target in cells]
        medians = [cell[1] for cell in cells.values()]
        bars = axis.bar(names, medians, color=[COLOURS[target] for target in cells], width=0.6)
        axis.bar_label(bars, fmt="%.0f" if max(medians) > 100 else "%.3g", padding=2)
        axis.set_title(f"{name} ({told[name]['unit']})", fontsize=9)
        axis.tick_params(axis="x", labelsize=7)
    delays = axes[3]
    for target, values in data["delays_us"].items():
        ordered = sorted(values)
        shares = [share / 2 for share in range(201)]
        times = [ordered[round(share / 100 * (len(ordered) - 1))] for share in shares]
        delays.plot(times, shares, color=COLOURS[target], label=data["columns"][target])
    delays.set_xscale("log")
    delays.set_title("delay of a chunk at 20 ms gaps (µs), % below", fontsize=9)
    delays.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
