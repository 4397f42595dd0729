"""Results as Markdown tables and a figure, and into the page of the documentation that holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivage.report.theme import MUTED, looks, to_svg

from ..fedavg_speed.tables import documents
from .results import PEERS, rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAGE", "ROWS", "all_tables", "figure", "fill_page"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "caching-speed.md"
FIGURE = ROOT / "docs" / "_measured" / "caching-speed.svg"
OURS = ("OGB", "NoRegretCache, one by one", "NoRegretCache, batches", "LRU", "S3-FIFO", "OGB by full projection")
ROWS = (*OURS, *(label for labels in PEERS.values() for label in labels))
_DRAWN = tuple(
    label
    for label in ROWS
    if label not in ("NoRegretCache, batches", "libCacheSim LRU, default table", "cachetools LFU")
)  # as many as there are colours
_MISSING, _LABEL = "not measured", "Requests per second by catalog size"


def all_tables(report: Mapping[str, Any]) -> dict[str, str]:
    """Name of each table -> Markdown."""
    return {
        "caching-speed": f"{_rates(report)}\n\n{_note(report)}",
        "caching-speed-bars": _bars(report),
        "caching-speed-hits": _hits(report),
        "caching-speed-memory": _memory(report),
    }


def fill_page(report: Mapping[str, Any]) -> None:
    """Write tables and figure into the documentation."""
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_text(figure(report), encoding="utf-8")
    picture = f"![{_LABEL}](../_measured/{FIGURE.name})"
    for name, table in all_tables(report).items():
        documents().replace_table(PAGE, name, f"{picture}\n\n{table}" if name == "caching-speed" else table)


def _table(report: Mapping[str, Any], title: str, cell: Any) -> str:
    sizes = report["sizes"]
    rows = [(label, *(cell(size, label, lanes.get(label, {})) for size, lanes in sizes.items())) for label in ROWS]
    header = (title, *(f"N = 10^{round(math.log10(int(size)))}" for size in sizes))
    table: str = documents().markdown(header, rows)
    return table


def _absent(found: Mapping[str, Any]) -> str:
    """Not asked to play at this size, or asked and failed."""
    return "–" if found.get("fault") == "not asked" else _MISSING


def _rates(report: Mapping[str, Any]) -> str:
    def cell(size: str, label: str, found: Mapping[str, Any]) -> str:
        value = rate(report["sizes"], size, label)
        return _absent(found) if value is None else f"{value / 1e6:.2g}" if value < 1e6 else f"{value / 1e6:.2f}"

    return _table(report, "million requests/s", cell)


def _hits(report: Mapping[str, Any]) -> str:
    def cell(size: str, label: str, found: Mapping[str, Any]) -> str:
        if "hits" not in found:
            return _absent(found)
        served = round(report["requests"] * found["share"])
        moved = "" if found["inserted"] is None else f" · {found['inserted'] / served:.3f}"
        return f"{found['hits'] / served:.4f}{moved}"

    return _table(report, "hits · insertions per request", cell)


def _memory(report: Mapping[str, Any]) -> str:
    def cell(size: str, label: str, found: Mapping[str, Any]) -> str:
        return f"{found['bytes'] / 2**20:,.1f}" if "bytes" in found else _absent(found)

    return _table(report, "MiB at the end", cell)


def _bars(report: Mapping[str, Any]) -> str:
    rows = []
    for bar in report["bars"]:
        sign, bound = ("≥", bar["least"]) if bar["least"] is not None else ("≤", bar["most"])
        value = _MISSING if bar["measured"] is None else f"{bar['measured']:,.3g}"
        value = f"{bar['measured']:,.0f}" if bar["measured"] and bar["measured"] > 1000 else value
        rows.append(
            (bar["claim"], f"{sign} {bound:,.10g}" + (" wanted" if bar["wanted"] else ""), value, bar["verdict"])
        )
    table: str = documents().markdown(("bar", "bound", "measured", "verdict"), rows)
    return table


def _note(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    return (
        f"One core of {machine['cpu']}, load {machine['load_before']:.1f} before, Python {machine['python']}, "
        f"{versions}. "
        f"{report['requests']:,} requests, {report['plays']} plays. `{report['command']}`"
    )


def figure(report: Mapping[str, Any]) -> str:
    """Requests per second by catalog size, both on logarithmic scales."""
    sizes = report["sizes"]
    lines = {
        label: [(int(size), value) for size in sizes if (value := rate(sizes, size, label)) is not None]
        for label in _DRAWN
    }
    lines = {label: points for label, points in lines.items() if points}
    styles = looks((label, label) for label in lines)

    def fill(drawing: Figure) -> None:
        axes = drawing.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        for label, points in lines.items():
            style = styles[label]
            axes.plot(*zip(*points, strict=True), marker=style.marker, color=style.color, markersize=5, label=label)
        axes.set_xticks([int(size) for size in sizes], [f"{int(size):,}" for size in sizes])
        axes.set_yticks([10**power for power in range(3, 9)], ["1 k", "10 k", "100 k", "1 M", "10 M", "100 M"])
        axes.minorticks_off()
        axes.set_xlabel("catalog size N", color=MUTED)
        axes.set_ylabel("requests per second", color=MUTED)
        axes.grid(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)

    text: str = documents().standalone(to_svg(fill, size=(8.0, 4.0), name="caching-speed", label=_LABEL))
    return text
