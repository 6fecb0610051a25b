"""Pictures of the operator's results, as SVG files. Layer: tooling; imports pygal.

The one idea: a picture is made from the same JSON files as the page, so it shows what the page says.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pygal
from pygal.style import Style

from bench.claim import RESULTS

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SIDES = (("ours", "ours"), ("controller-runtime", "controller-runtime (Go)"), ("naive-kopf", "naive kopf"))
STYLE = Style(
    background="#ffffff", plot_background="#ffffff", foreground="#24292f", foreground_strong="#24292f",
    foreground_subtle="#57606a", colors=("#0969da", "#57606a", "#bf8700"), font_family="sans-serif",
    value_font_size=11, label_font_size=11, legend_font_size=12, title_font_size=14,
)  # fmt: skip


def bursts() -> dict[str, list[dict[str, Any]]]:
    """The rounds of the burst of 1,000, by side."""
    details: dict[str, Any] = json.loads((RESULTS / "operator-writes.json").read_text())["details"]
    return {side: details[side] for side, _ in SIDES}


def chart(title: str, labels: list[str], series: dict[str, list[float]], unit: str) -> pygal.Bar:
    """Bars beside each other, one group a label."""
    bars = pygal.Bar(
        style=STYLE, width=720, height=340, title=title, print_values=True, legend_at_bottom=True,
        value_formatter=lambda value: f"{value:.3g} {unit}", disable_xml_declaration=True, js=[],
    )  # fmt: skip
    bars.x_labels = labels
    for name, values in series.items():
        bars.add(name, values)
    return bars


def draw() -> list[str]:
    """Writes the pictures; their file names."""
    IMAGES.mkdir(exist_ok=True)
    found = bursts()
    latency = {
        title: [
            median([one["parent_to_last_child_seconds"][quantile] for one in found[side]])
            for quantile in ("p50", "p99")
        ]
        for side, title in SIDES
    }
    costs = {
        title: [
            median([one["writes_per_object"] for one in found[side]]),
            median([one["cpu_ms_per_object"] for one in found[side]]),
        ]
        for side, title in SIDES
    }
    memory = {title: [median([one["rss_mib"] for one in found[side]])] for side, title in SIDES}
    pictures = {
        "operator-latency.svg": chart(
            "1,000 agents at once: from an agent to its last child", ["median", "p99"], latency, "s"
        ),
        "operator-costs.svg": chart(
            "Per created agent", ["writes", "CPU, ms"], costs, ""
        ),
        "operator-memory.svg": chart("Resident memory after 1,000 agents", ["MiB"], memory, "MiB"),
    }  # fmt: skip
    for name, bars in pictures.items():
        (IMAGES / name).write_text(bars.render(is_unicode=True) + "\n")
    return sorted(pictures)
