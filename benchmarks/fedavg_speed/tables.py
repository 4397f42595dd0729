"""Results as Markdown tables and a figure, and into the page of the documentation that holds them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rivage.report.theme import INK, MUTED, looks, to_svg

from .results import LOGGED, METHODS, OURS, PEERS, PLAIN, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PAGE", "all_tables", "documents", "figure", "fill_page"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "engine-speed.md"
FIGURE = ROOT / "docs" / "_measured" / "engine-speed.svg"
_ROWS = (
    *((label, "own") for label in (OURS, LOGGED, *METHODS.values())),
    *((label, "peers") for labels in PEERS.values() for label in labels),
)
_MISSING = "not measured"
_TICKS = (0.05, 0.2, 1, 5)


def documents() -> ModuleType:
    """scripts/figures.py, which knows how tables and figures stand in the documentation."""
    if "rivage_figures" not in sys.modules:
        spec = spec_from_file_location("rivage_figures", ROOT / "scripts" / "figures.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return sys.modules["rivage_figures"]


def all_tables(report: Mapping[str, Any]) -> dict[str, str]:
    """Name of each table -> Markdown."""
    return {
        "engine-speed": f"{_times(report)}\n\n{_note(report)}",
        "engine-speed-bars": _bars(report),
        "engine-speed-cost": _costs(report),
    }


def fill_page(report: Mapping[str, Any]) -> None:
    """Write tables and figure into the documentation."""
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_text(figure(report), encoding="utf-8")
    picture = f"![{_label(report)}](../_measured/{FIGURE.name})"
    for name, table in all_tables(report).items():
        documents().replace_table(PAGE, name, f"{picture}\n\n{table}" if name == "engine-speed" else table)


# --- tables ---------------------------------------------------------------------------------------------------------


def _times(report: Mapping[str, Any]) -> str:
    results = report["workloads"]
    rows = [(_called(PLAIN, results), *(f"1 ({_milliseconds(w['own'][PLAIN])})" for w in results.values()))]
    for label, heat in _ROWS:
        values = [ratio(workload[heat], label) for workload in results.values()]
        missing = [label in METHODS.values() and not _asked(workload, label) for workload in results.values()]
        cells = ["–" if none else _number(value) for none, value in zip(missing, values, strict=True)]
        rows.append((_called(label, results), *cells))
    table: str = documents().markdown(("time per round, relative", *results), rows)
    return table


def _asked(workload: Mapping[str, Any], label: str) -> bool:
    return label in workload["own"]


def _milliseconds(found: Mapping[str, Any]) -> str:
    return f"{1e3 * statistics.median(found['seconds']):,.0f} ms" if "seconds" in found else _MISSING


def _number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _called(label: str, results: Mapping[str, Any]) -> str:
    """A peer with its version."""
    word = label.partition(",")[0]
    name = {"pfl": "pfl", "Flower": "flwr", "FedJAX": "fedjax"}.get(word, "")
    versions = (workload["peers"].get(label, {}).get("versions", {}).get(name) for workload in results.values())
    found = next(filter(None, versions), "")
    return label.replace(word, f"{word} {found}", 1) if found else label


def _bars(report: Mapping[str, Any]) -> str:
    rows = [
        (
            bar["claim"],
            bar["workload"],
            f"{'≥' if bar['least'] else '≤'} {bar['bound']:g}" + (f" ({bar['wanted']:g})" if bar["wanted"] else ""),
            _number(bar["measured"]),
            "met, as wanted" if bar["verdict"] == "wanted" else bar["verdict"],
        )
        for bar in report["bars"]
    ]
    table: str = documents().markdown(("bar", "workload", "bound (wanted)", "measured", "verdict"), rows)
    return table


def _costs(report: Mapping[str, Any]) -> str:
    """CPU time relative to the plain loop's, memory above the start, and distance of the results."""
    rows = []
    for label, heat in ((PLAIN, "own"), *_ROWS):
        cells = []
        for workload in report["workloads"].values():
            found, plain = workload[heat].get(label, {}), workload[heat].get(PLAIN, {})
            cells.append(_cost(found, plain) if "seconds" in found and "seconds" in plain else "–")
        rows.append((_called(label, report["workloads"]), *cells))
    table: str = documents().markdown(("CPU time · peak MiB · distance", *report["workloads"]), rows)
    return table


def _cost(found: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    cpu = sum(found["cpu_seconds"]) / sum(plain["cpu_seconds"])
    same = found["variant"].get("algorithm", "fedavg") == "fedavg" and found.get("distance")
    distance = f" · {found['distance'] / found['moved']:.0e}" if same else ""
    return f"{_number(cpu)} · {found['peak_rss_bytes'] / 2**20:,.0f}{distance}"


def _note(report: Mapping[str, Any]) -> str:
    machine, versions = report["machine"], report["versions"]
    parts = [
        f"{machine['cores']} cores of {machine['cpu']}",
        f"load {machine['load_before']:.1f} before",
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in versions.items()),
    ]
    rounds = ", ".join(f"{name} {found['rounds']}" for name, found in report["workloads"].items())
    return f"{', '.join(parts)}. Timed rounds: {rounds}. `{report['command']}`"


# --- figure ---------------------------------------------------------------------------------------------------------


def figure(report: Mapping[str, Any]) -> str:
    """Time relative to the plain loop, a panel per workload; the bars as upright lines."""
    results = report["workloads"]
    labels = [label for label, heat in _ROWS if any(ratio(w[heat], label) for w in results.values())]
    styles = looks((label, label) for label in labels)
    found = [value for w in results.values() for label, heat in _ROWS if (value := ratio(w[heat], label)) is not None]
    limits = min([0.04, *(0.8 * value for value in found)]), max([1.25, *(1.3 * value for value in found)])

    def fill(drawing: Figure) -> None:
        panels = drawing.subplots(1, len(results), sharey=True, squeeze=False)[0]
        for axes, (name, workload) in zip(panels, results.items(), strict=True):
            points = [(label, ratio(workload[heat], label)) for label, heat in _ROWS if label in labels]
            _panel(axes, points, styles, limits, [bar for bar in report["bars"] if bar["workload"] == name])
            axes.set_title(name)
        panels[0].set_yticks(range(len(labels)), [_called(label, results) for label in labels])
        panels[0].set_ylim(len(labels) - 0.5, -0.5)
        drawing.supxlabel("time per round, plain loop on one thread = 1", fontsize=9, color=MUTED)

    drawn = to_svg(fill, size=(10.0, 0.9 + 0.27 * len(labels)), name="engine-speed", label=_label(report))
    text: str = documents().standalone(drawn)
    return text


def _panel(
    axes: Axes,
    points: Sequence[tuple[str, float | None]],
    styles: Mapping[str, Any],
    limits: tuple[float, float],
    bars: Iterable[Mapping[str, Any]],
) -> None:
    axes.set_xscale("log")
    axes.set_xlim(limits)
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.minorticks_off()
    axes.grid(True, axis="both")
    axes.axvline(1, color=INK, linewidth=0.9)
    for bar in bars:
        if bar["wanted"]:
            axes.axvline(bar["bound"], color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)))
            axes.axvline(bar["wanted"], color=MUTED, linewidth=1.1, linestyle=(0, (1, 2)))
    for height, (label, value) in enumerate(points):
        if value is not None:
            axes.plot([min(value, 1), max(value, 1)], [height, height], color=styles[label].color, linewidth=1.2)
            axes.plot(value, height, styles[label].marker, color=styles[label].color, markersize=6)


def _label(report: Mapping[str, Any]) -> str:
    return f"Time per round on {', '.join(report['workloads'])} relative to a plain loop"
