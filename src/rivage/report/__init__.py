"""Reports of runs: one self-contained HTML page with certificates, tables and figures, from records alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.report.citations import bibtex, citation, references
    from rivage.report.page import write_report

__all__ = ["bibtex", "citation", "references", "write_report"]

_HOMES = {"bibtex": "citations", "citation": "citations", "references": "citations", "write_report": "page"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the package alone loads neither Matplotlib nor Jinja2."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
