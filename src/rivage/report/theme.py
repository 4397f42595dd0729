"""Colours of the methods, and Matplotlib figures as inline SVG that follow the page's light or dark theme.

A figure is drawn in *stand-in* colours, which `to_svg` replaces by CSS variables (``var(--series-0)``), so that one
drawing serves screen, dark screen and paper. Methods differ in colour, dash pattern and marker: the figures can be
read without colour. The eight colours keep >= 3:1 contrast to the page in both themes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rivage.core.errors import require_extra
from rivage.report.ticks import written_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BAD", "DARK", "INK", "LABEL", "LIGHT", "MUTED", "PAPER", "Look", "looks", "theme_css", "to_svg"]

LIGHT = {
    "paper": "#ffffff", "panel": "#f6f7f8", "ink": "#1f2328", "muted": "#5b636c", "grid": "#dfe2e6",
    "good": "#0b6e55", "bad": "#b3350a", "weak": "#6a5d00", "accent": "#0068b5",
    "series-0": "#0068b5", "series-1": "#d95b00", "series-2": "#0f9d78", "series-3": "#8e1f6f",
    "series-4": "#8873e6", "series-5": "#6f6200", "series-6": "#1f93b8", "series-7": "#b0576e",
}  # fmt: skip
DARK = {
    "paper": "#15181c", "panel": "#1d2126", "ink": "#e6e8ea", "muted": "#a2a9b1", "grid": "#343a41",
    "good": "#4fd6ae", "bad": "#ff9d73", "weak": "#e0c95a", "accent": "#62b2f3",
    "series-0": "#4a9eea", "series-1": "#ff8a4a", "series-2": "#3fd9a8", "series-3": "#d863ad",
    "series-4": "#8f74f5", "series-5": "#ecc83a", "series-6": "#86c8f5", "series-7": "#d08a97",
}  # fmt: skip
NUM_SERIES = 8
INK, MUTED, GRID, PAPER, BAD, LABEL = (f"#0a00f{k}" for k in range(6))
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", BAD: "bad"} | {
    f"#0a00{slot:02x}": f"series-{slot}" for slot in range(NUM_SERIES)
}
# Words on the drawing get a rim of paper, so that lines do not cross them. Matplotlib's own would turn text to paths.
_RIM = "fill: var(--ink); stroke: var(--paper); stroke-width: 3px; paint-order: stroke"
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.4, 1.4), (6, 1.5, 1.4, 1.5), (9, 2), (3, 1, 1, 1, 1, 1))
_MARKERS = "osD^vPX*"
_SHIFT = 3  # markers move by so many for methods that share a colour with an earlier one
_HATCHES = ("", "////", "....", "xxxx")  # areas of methods that share a colour


@dataclass(frozen=True, slots=True)
class Look:
    """How one method is drawn everywhere on the page.

    Args:
        color: stand-in colour for Matplotlib.
        variable: the CSS variable that replaces it.
        dashes: on-off lengths in points; empty for a solid line.
        marker: Matplotlib marker.
        hatch: Matplotlib pattern of areas; empty for the first method of a colour.
    """

    color: str
    variable: str
    dashes: tuple[float, ...]
    marker: str
    hatch: str = ""

    @property
    def line(self) -> Any:
        """Matplotlib's ``linestyle``."""
        return (0, self.dashes) if self.dashes else "-"


def looks(kinds: Iterable[tuple[str, str]]) -> dict[str, Look]:
    """Method name -> look, in order of first appearance; Local is the reference and is drawn in ink.

    Args:
        kinds: pairs (method name, kind) of all records on the page, so that a name looks the same in each.
    """
    found: dict[str, Look] = {}
    for name, kind in kinds:
        if name not in found and kind == "local":
            found[name] = Look(INK, "ink", (4, 3), "_")
        elif name not in found:
            slot = sum(look.variable != "ink" for look in found.values())
            lap, color = slot // NUM_SERIES, f"#0a00{slot % NUM_SERIES:02x}"
            marker = _MARKERS[(slot + _SHIFT * lap) % len(_MARKERS)]
            hatch = _HATCHES[lap % len(_HATCHES)]
            found[name] = Look(color, _VARIABLES[color], _DASHES[slot % len(_DASHES)], marker, hatch)
    return found


def theme_css() -> str:
    """The colour variables: light by default and in print, dark where the reader prefers it."""

    def block(colors: Mapping[str, str]) -> str:
        return ":root{" + "".join(f"--{name}:{color};" for name, color in colors.items()) + "}"

    return f"{block(LIGHT)}\n@media screen and (prefers-color-scheme: dark){{{block(DARK)}}}"


_STYLE = {
    "svg.fonttype": "none",  # text stays text: selectable, small, in the page's font
    "font.size": 9.0, "axes.titlesize": 9.5, "axes.labelsize": 9.0, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "axes.titlelocation": "left", "axes.titlepad": 7.0, "axes.titleweight": "bold",
    "text.color": INK, "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.edgecolor": MUTED, "axes.linewidth": 0.7, "axes.facecolor": "none", "figure.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.7,
    "xtick.major.size": 3.0, "ytick.major.size": 0.0, "xtick.major.width": 0.7,
    "lines.linewidth": 1.7, "lines.markersize": 4.5, "text.parse_math": False,
}  # fmt: skip


def _style(salt: str) -> Any:
    """Matplotlib's defaults and ours, whatever the reader's matplotlibrc says, until the context ends."""
    require_extra("matplotlib", extra="report", purpose="Drawing figures")
    from matplotlib import style

    return style.context(["default", _STYLE | {"svg.hashsalt": salt}])


def to_svg(fill: Callable[[Figure], None], *, size: tuple[float, float], name: str, label: str) -> str:
    """A figure as an ``<svg>`` element for an HTML page: no prolog, no date, no outside address.

    The same drawing gives the same bytes.

    Args:
        fill: draws into an empty figure, in stand-in colours.
        size: width and height in inches.
        name: prefix of all ids within; unique on the page.
        label: what the figure shows, for readers who do not see it.

    Raises:
        MissingExtra: without Matplotlib.
    """
    with _style(name):
        from matplotlib.figure import Figure

        figure, buffer = Figure(figsize=size, layout="constrained"), io.StringIO()
        fill(figure)
        written_out(figure)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    opening, _, body = text[text.index("<svg") :].partition(">")
    width = f"{size[0] * 96:.0f}px"
    style = f"width:{width};min-width:min({width},36rem)"  # shrinks on a narrow screen, then scrolls
    box = re.findall(r'viewBox="([^"]*)"', opening)[0]
    return f'<svg role="img" aria-label="{html.escape(label)}" viewBox="{box}" style="{style}">{_inline(body, name)}'


def _inline(body: str, name: str) -> str:
    """The inside of a Matplotlib SVG, fit for a page that holds several: own ids, the page's colours and fonts."""
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # would apply to the whole page
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-", body)
    body = re.sub(r'\b(?:d|x|y|transform|points)="[^"]*"', _shorten, body)
    body = re.sub(r"font: (?:(\d+) )?([\d.]+px)[^;\"]*", r"font-weight: \1; font-size: \2", body)  # Matplotlib < 3.10
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = body.replace(f"fill: {LABEL}", _RIM)
    body = re.sub(r"#0a00[0-9a-f]{2}", lambda color: f"var(--{_VARIABLES[color[0]]})", body)
    return re.sub(r">\s+<", "><", body).strip()


def _shorten(match: re.Match[str]) -> str:
    """Coordinates to 1/100 point: half of the bytes, nothing the eye can see."""
    text = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), match[0])
    return text.replace(" \n", " ").replace("\n", " ")
