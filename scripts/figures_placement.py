"""The figure of docs/tutorials/place-models.md: the plan that a reader of that page makes."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from rivage.report.games.delivery_figures import placement

__all__ = ["city_plan"]

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "place-models.md"


def city_plan(folder: Path) -> str:
    """The network with the models on it, drawn from the study on the page."""
    from rivage.studies.games.placement import load_placement
    from rivage.studies.play import play_study

    for name, text in re.findall(r"^```toml file=(\S+)\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        (folder / name).write_text(text, "utf-8")
    with contextlib.chdir(folder):
        record = play_study(load_placement(Path("city.toml")), out=Path("plans"))
        svg = placement(record, "relaxed", name="city-plan")
    assert svg is not None, "the plan was made"
    return svg
