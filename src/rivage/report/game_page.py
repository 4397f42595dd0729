"""Everything that the page shows of one run of online policies, whatever the game."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivage.core.games import view
from rivage.core.records import RunRecord
from rivage.core.toml import format_toml
from rivage.report import tables, words
from rivage.report.theme import Look

__all__ = ["game_page"]

_SINGULAR = {"policies": "policy"}  # of others the plural ends in s


def game_page(record: RunRecord, styles: Mapping[str, Look], anchor: str) -> dict[str, Any]:
    """What the template needs of one run."""
    from markupsafe import Markup  # comes with Jinja2

    game = view(record)
    spreads = f" ± is the standard deviation over {len(record.seeds)} seeds." if len(record.seeds) > 1 else ""
    noun = _SINGULAR.get(record.compared, record.compared.removesuffix("s"))
    best = f" Bold: the best {noun}{' without foresight' if noun == 'policy' else ''}."
    rivals = [name for name, policy in game.policies.items() if not policy["foresees"]]
    return {
        "anchor": anchor,
        "verb": record.verb,
        "game": True,
        "noun": noun,
        "ground": "Designed for" if record.verb == "design" else "Played on",
        "title": words.title(record),
        "folder": record.folder.name,
        "compared": game.compared,
        "answer": game.answer,
        "progress": game.progress,
        "certificates": tables.certificate_groups(record.certificates),
        "policies": rivals,
        "columns": game.columns,
        "headings": ", ".join(column.heading for column in game.columns if not column.detail),
        "results": game.rows,
        "note": f"{game.note}{spreads}{best if rivals else ''}",
        "drawings": [(each.heading, each.caption, Markup(each.svg)) for each in game.drawings(styles, anchor)],
        "facts": game.facts,
        "settings": format_toml(record.settings),
        "versions": record.versions,
        "hash": record.hash,
    }
