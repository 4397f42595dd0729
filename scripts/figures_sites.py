"""The figure of docs/tutorials/fastest-overlay.md: the overlay that a reader of that page designs."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from rivage.core.games import view
from rivage.report.theme import looks

__all__ = ["fastest_overlay"]

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "fastest-overlay.md"
SETTINGS = ("silos.model_bits=4907328", "overlays.best.steps=100000")
SHOWN = 2
"""Drawings of the report: who sends to whom, and what happens in some rounds."""


def fastest_overlay(folder: Path) -> list[str]:
    """The map and the rounds of the best overlay and others, as the report of the page's study draws them."""
    from rivage.core.toml import load_toml
    from rivage.studies.games.design import make_design
    from rivage.studies.play import play_study

    for name, text in re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    with contextlib.chdir(folder):
        study = make_design({"name": "network", **load_toml(Path("network.toml"))}, overrides=SETTINGS)
        record = play_study(study, out=Path("overlays"))
        game = view(record)
        styles = looks((name, name) for name in game.policies)
        drawn = {each.heading: each.svg for each in game.drawings(styles, "fastest-overlay")}
    wanted = [svg for heading, svg in drawn.items() if heading.startswith(("Who sends", "Rounds in"))]
    assert len(wanted) == SHOWN, "the report draws both"
    return wanted
