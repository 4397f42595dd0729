"""One self-contained HTML page for a run, or for several runs side by side.

The page holds its styles and figures, asks for nothing outside itself and runs no script. It is a function of the
records alone: the same records give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivage.core.errors import ConfigError, require_extra
from rivage.core.records import RunRecord
from rivage.core.store import write_text
from rivage.core.summaries import local_method, summarize
from rivage.core.toml import format_toml
from rivage.report import client_tables, curves, exchanges, figures, shares, tables, words
from rivage.report.audit_page import audits
from rivage.report.citations import bibtex, citation, references
from rivage.report.clock_figures import against_time, told_reached
from rivage.report.game_page import game_page
from rivage.report.theme import Look, looks, theme_css

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["write_report"]

_MARKERS = {
    "o": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0", "s": "M-3-3h6v6h-6z", "D": "M0-4 4 0 0 4-4 0z", "^": "M0-4 4 3h-8z",
    "v": "M0 4 4-3h-8z", "P": "M-1.3-4h2.6v2.7H4v2.6H1.3V4h-2.6V1.3H-4v-2.6h2.7z",
    "X": "M-4-2.2-2.2-4 0-1.8 2.2-4 4-2.2 1.8 0 4 2.2 2.2 4 0 1.8-2.2 4-4 2.2-1.8 0z",
    "*": "M0-4.5 1.2-1.4 4.4-1.4 1.9.6 2.8 3.8 0 2-2.8 3.8-1.9.6-4.4-1.4-1.2-1.4z", "_": "",
}  # fmt: skip


def write_report(records: Sequence[RunRecord], path: Path) -> Path:
    """Write the report of one or several runs.

    Args:
        records: at least one; finished or not.
        path: of the HTML file, replaced atomically.

    Returns:
        ``path``.

    Raises:
        ConfigError: without records.
        MissingExtra: without Matplotlib or Jinja2.
        StoreError: for a record that cannot be read.
    """
    if not records:
        raise ConfigError("no run to report on", mend="Give at least one run folder.")
    styles = looks(
        (trial.start.get("policy", trial.method), trial.kind) for record in records for trial in record.trials
    )
    runs = [
        (game_page if record.is_game else _run)(record, styles, f"r{position}")
        for position, record in enumerate(records, 1)
    ]
    text = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            title=words.title(records[0]) if len(runs) == 1 else f"{len(runs)} runs compared",
            runs=runs,
            looks={name: _swatch(look) for name, look in styles.items()},
            differences=tables.settings_differences(records) if len(runs) > 1 else [],
            references=[(citation(r), uses, bibtex(r)) for r, uses in references(records)],
            theme=theme_css(),
        )
    )
    write_text(path, text)
    return path


def _environment() -> Environment:
    require_extra("jinja2", extra="report", purpose="Writing a report")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rivage.report"),
        autoescape=True,  # names of methods, clients and columns come from users
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": tables.number, "pretty": _pretty}
    return environment


def _swatch(look: Look) -> dict[str, str]:
    """What the legend needs to draw a method as the figures do."""
    return {
        "color": f"var(--{look.variable})",
        "dashes": " ".join(str(1.6 * length) for length in look.dashes) or "none",
        "marker": _MARKERS[look.marker],
    }


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _run(record: RunRecord, styles: Mapping[str, Look], anchor: str) -> dict[str, Any]:
    """Everything the template shows of one run."""
    summary = summarize(record)
    local, budget = local_method(record), client_tables.budget(summary)
    clients, total = tables.client_rows(record, summary)
    participation = tables.participation_rows(record)
    start = record.trials[0].start if summary else {"population": {"notes": {}}}
    return {
        "anchor": anchor,
        "verb": record.verb,
        "game": False,
        "title": words.title(record),
        "folder": record.folder.name,
        "compared": words.compared(record, summary),
        "answer": words.answer(record, summary),
        "progress": words.progress(record),
        "certificates": tables.certificate_groups(record.certificates),
        "summary": summary,
        "adversary": exchanges.harm(summary),
        "exchanges": exchanges.exchanges(summary),
        "notices": exchanges.notices(summary),
        "metric": start.get("metric", "metric"),
        "higher_is_better": start.get("higher_is_better", True),
        "results": tables.result_rows(record, summary),
        "local": local,
        "spread": client_tables.spread_rows(summary, local),
        "unseen": client_tables.unseen_rows(summary, local),
        "has_sizes": any("train_size" in event for event in record.events("evaluation")),
        "budget": None if budget is None else tables.human_bytes(budget),
        "has_stores": any(row["neighbour_bytes"] is not None for row in summary.values()),
        "costs": client_tables.cost_rows(summary),
        "seeds": record.seeds,
        "has_unseen": any(row["unseen_mean"] is not None for row in summary.values()),
        "has_clock": any(row["simulated_s"] is not None for row in summary.values()),
        "has_devices": any(row["energy_j"] is not None for row in summary.values()),
        "figures": _figures(record, styles, anchor, budget),
        "reached": told_reached(record),
        "participation": participation,
        "audits": audits(record, summary, anchor),
        "has_refused": any(row["refused"] for row in participation),
        "has_forgotten": any(row["forgotten"] for row in participation),
        "clients": clients,
        "num_clients": total,
        "notes": start["population"].get("notes", {}),
        "settings": format_toml(record.settings),
        "versions": record.versions,
        "hash": record.hash,
    }


def _figures(record: RunRecord, styles: Mapping[str, Look], anchor: str, budget: float | None) -> dict[str, str | None]:
    from markupsafe import Markup  # comes with Jinja2

    drawn = {
        "curves": curves.learning_curves(record, styles, name=f"{anchor}-curves", budget=budget),
        "server": curves.server_numbers(record, styles, name=f"{anchor}-server"),
        "clock": against_time(record, styles, name=f"{anchor}-clock"),
        "scatter": figures.scatter_against_local(record, styles, name=f"{anchor}-scatter"),
        "sorted": figures.sorted_clients(record, styles, name=f"{anchor}-sorted"),
        "mixtures": shares.mixtures(record, styles, name=f"{anchor}-mixtures"),
        "neighbours": shares.neighbour_shares(record, styles, name=f"{anchor}-neighbours"),
        "choices": figures.guarded_choices(record, styles, name=f"{anchor}-choices"),
        "participation": figures.participation(record, name=f"{anchor}-participation"),
    }
    return {key: None if svg is None else Markup(svg) for key, svg in drawn.items()}
