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


def game_page(record: RunRecord, styles: Mapping[str, Look], anchor: str) -> dict[str, Any]:
    """What the template needs of one run."""
    from markupsafe import Markup  # comes with Jinja2

    game = view(record)
    spreads = f" ± is the standard deviation over {len(record.seeds)} seeds." if len(record.seeds) > 1 else ""
    rivals = [name for name, policy in game.policies.items() if not policy["foresees"]]
    return {
        "anchor": anchor,
        "verb": record.verb,
        "game": True,
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
        "note": f"{game.note}{spreads} Bold: the best policy without foresight." if rivals else f"{game.note}{spreads}",
        "drawings": [(each.heading, each.caption, Markup(each.svg)) for each in game.drawings(styles, anchor)],
        "facts": game.facts,
        "settings": format_toml(record.settings),
        "versions": record.versions,
        "hash": record.hash,
    }
