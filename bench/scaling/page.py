"""The pictures and the table of docs/autoscaling.md, from the results. Layer: tooling; imports pygal.

The one idea: nobody types a figure; what is between the two marks of the page is generated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pygal

from bench.claim import RESULTS
from bench.plots import IMAGES, STYLE
from bench.scaling.autoscalers import SIDES
from bench.scaling.experiment import LINES, MACHINE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "autoscaling.md"
BEGIN, END = "<!-- table: make bench-report -->\n", "<!-- end -->\n"
PICTURES = {"spike": "spike", "ramp": "ramp", "azure conversation": "azure"}
TARGET = 0.7 * MACHINE.slots
HEAD = (
    "| Trace | Autoscaler | Lost, % | p99 wait, s | Replica-hours | Changes | Flaps |\n"
    "|---|---|---:|---:|---:|---:|---:|\n"
)


def picture(trace: str, lines: dict[str, list[list[float]]]) -> Any:
    """Replicas over time under three autoscalers, and what the demand of ours amounts to."""
    plot = pygal.XY(
        style=STYLE, width=720, height=340, title=f"{trace.capitalize()}: replicas", stroke=True, dots_size=0,
        show_dots=False, legend_at_bottom=True, x_title="minutes", disable_xml_declaration=True, js=[],
        interpolate=None,
    )  # fmt: skip
    titles = {side.name: side.title for side in SIDES}
    for side, points in lines.items():
        plot.add(titles[side], [(minute, replicas) for minute, replicas, _ in points])
    demand = [(minute, round(load / TARGET, 2)) for minute, _, load in lines["ours"]]
    plot.add("demand (ours), in replicas", demand, stroke_style={"dasharray": "2, 3"})
    return plot


def rows(details: dict[str, dict[str, dict[str, float]]]) -> str:
    """The table's rows."""
    titles = {side.name: side.title for side in SIDES}
    found = []
    for trace, sides in details.items():
        for index, (side, one) in enumerate(sides.items()):
            found.append(
                f"| {trace if index == 0 else ''} | {titles[side]} | {one['lost_percent']:.2f} "
                f"| {one['wait_p99']:.2f} | {one['replica_hours']:.2f} | {one['changes']:.0f} "
                f"| {one['flaps']:.1f} |"
            )
    return "\n".join(found) + "\n"


def write() -> None:
    """Draws the pictures and renews the table."""
    details = json.loads((RESULTS / "scaling-simulated.json").read_text())["details"]
    lines = json.loads(LINES.read_text())
    for trace, name in PICTURES.items():
        text = picture(trace, lines[trace]).render(is_unicode=True)
        (IMAGES / f"autoscaling-{name}.svg").write_text(text + "\n")
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + HEAD + rows(details) + "\n" + END + rest.split(END)[1])
