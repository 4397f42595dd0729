"""Numbers along axes: whole ones, and those of logarithmic axes written out, because a page has no typeset powers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["logarithmic", "whole_numbers", "written_out"]

_NARROW, _WIDE = 40.0, 2000.0  # ratios of the ends of an axis


def whole_numbers(axes: Axes) -> None:
    """Whole numbers along x: there is no half client and no half round."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, after its limits are known: marks at 1, 2, 5 of few decades, at 1, 3 or 1 of many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{which}scale": "log"})
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    ratio = high / low
    subs = (1.0, 2.0, 5.0) if ratio < _NARROW else (1.0, 3.0) if ratio < _WIDE else (1.0,)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _written(value)))
    axis.set_minor_formatter(NullFormatter())


def written_out(figure: Figure) -> None:
    """Replace the typeset powers along logarithmic axes."""
    from matplotlib.ticker import Formatter, LogFormatter

    class Plain(Formatter):
        def __init__(self, chooses: LogFormatter) -> None:
            self._chooses = chooses

        def set_locs(self, locs: list[float]) -> None:
            self._chooses.set_locs(locs)

        def __call__(self, value: float, pos: int | None = None) -> str:
            return _written(value) if self._chooses(value, pos) else ""

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(major := axis.get_major_formatter(), LogFormatter):
            axis.set_major_formatter(Plain(major))
        if isinstance(minor := axis.get_minor_formatter(), LogFormatter):
            axis.set_minor_formatter(Plain(minor))


def _written(value: float) -> str:
    """Without zeros at the end, thousands apart."""
    return f"{value:,.10g}".replace("-", "−")
