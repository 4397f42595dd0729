"""Numbers along axes: whole ones, and those of logarithmic axes written out, because a page has no typeset powers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["logarithmic", "whole_numbers"]

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


def _written(value: float) -> str:
    """Without zeros at the end, thousands apart."""
    return f"{value:,.10g}".replace("-", "−")
