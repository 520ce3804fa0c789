#!/usr/bin/env python3
# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Draw what was measured, as SVG: `python bench/draw.py --run FILE --curves FILE FOLDER`. Needs matplotlib.

FOLDER/bench-ask.svg is row 2 of run.py: a round trip of each peer, as a multiple of a blocking one in C.
FOLDER/bench-curves.svg are the four curves of curves.py, the times above and the ratios to bare sockets below.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "neolink", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
})
import matplotlib.pyplot as plt     # noqa: E402 (after the choice of what it draws with)
from matplotlib.ticker import NullFormatter     # noqa: E402

OURS, BARE, OTHERS = "#1b6ca8", "#666666", "#c8ccd0"
AXES = {"payload": "payload, bytes", "conns": "Conns on the link", "links": "links in turn", "threads": "Python threads"}
COLOURS = {"peer": BARE, "core": OURS, "python link": "#d1495b", "python socket": BARE, "make": "#edae49"}


def draw_asks(run: dict[str, Any], target: Path) -> None:
    """Bars of row 2, a panel for each place."""
    results = next(row for row in run["rows"] if row["row"] == 2)["results"]
    places = list(dict.fromkeys(result["place"] for result in results))
    figure, panels = plt.subplots(1, len(places), figsize=(9, 3), sharey=True, squeeze=False)
    for panel, place in zip(panels[0], places):
        ours, *rest = [result for result in results if result["place"] == place]
        ratio = ours["value"]["median"]
        times = {"neolink link.ask": ratio, "blocking C": 1.0}
        for result in rest:
            times[result["title"].removeprefix("time of link.ask / ")] = ratio / result["value"]["median"]
        names = sorted(times, key=times.__getitem__, reverse=True)
        colours = [OURS if "neolink" in name else BARE if "C" in name else OTHERS for name in names]
        bars = panel.barh(names, [times[name] for name in names], color=colours)
        panel.bar_label(bars, [f"{times[name]:.2f}" for name in names], padding=3)
        panel.set(xscale="log", xlim=(min(0.2, *times.values()), 1.6 * max(times.values())), title=place)
        panel.set_xlabel("time of a round trip, blocking C = 1 (log)")
        panel.grid(axis="y", visible=False)
    save(figure, target)


def colour(series: str) -> str:
    """The same one for the same contender in each panel."""
    return next((found for start, found in COLOURS.items() if series.startswith(start)), "#3c7a57")


def draw_curves(found: list[dict[str, Any]], target: Path) -> None:
    """Times above, ratios below, for each curve."""
    curves = [name for name in AXES if any(point["curve"] == name for point in found)]
    figure, panels = plt.subplots(2, len(curves), figsize=(3.2 * len(curves), 5), sharex="col", squeeze=False,
                                  height_ratios=(3, 2))
    for column, curve in enumerate(curves):
        times, ratios = panels[0][column], panels[1][column]
        points = [point for point in found if point["curve"] == curve and point["unit"] == "us"]
        for series in dict.fromkeys(point["series"] for point in points):
            mine = [point for point in points if point["series"] == series]
            at = [max(point["x"], 1) for point in mine]
            times.plot(at, [point["value"] for point in mine], ".-", color=colour(series), label=series)
            if mine[0]["ratio"]:
                ratios.plot(at, [point["ratio"]["median"] for point in mine], ".-", color=colour(series))
                ratios.fill_between(at, [point["ratio"]["low"] for point in mine],
                                    [point["ratio"]["high"] for point in mine], color=colour(series), alpha=0.15)
        times.set(xscale="log", yscale="log", title=curve)
        for axis in (times.xaxis, times.yaxis):
            axis.set_minor_formatter(NullFormatter())
        times.legend(fontsize=7)
        ratios.axhline(1, color=BARE, linewidth=1)
        ratios.set(xlabel=AXES[curve], ylim=(0, None))
    panels[0][0].set_ylabel("us")
    panels[1][0].set_ylabel("time, bare sockets = 1")
    save(figure, target)


def save(figure: Any, target: Path) -> None:
    """Write it, the same bytes for the same numbers."""
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})
    print(target)


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description="draw what was measured")
    parser.add_argument("--run", metavar="FILE", type=Path, help="what run.py --json wrote")
    parser.add_argument("--curves", metavar="FILE", type=Path, help="what curves.py --json wrote")
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    options = parser.parse_args()
    if options.run:
        draw_asks(json.loads(options.run.read_text()), options.folder / "bench-ask.svg")
    if options.curves:
        draw_curves(json.loads(options.curves.read_text()), options.folder / "bench-curves.svg")


if __name__ == "__main__":
    main()
