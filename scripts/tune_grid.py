"""Choose the settings of the studies in ``rivage/studies/grid`` anew, on validation records, and write them there.

Usage: python scripts/tune_grid.py [NAME ...]
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import rivage.studies.grid
from rivage.core.toml import format_toml
from rivage.studies.claims.personalised_grid import GRID, grid_study
from rivage.studies.tuning import tune

FOLDER = Path(rivage.studies.grid.__path__[0])


def choose(name: str, out: Path) -> None:
    """Tune a study and replace the settings of its methods; the comment at its top stays."""
    path = FOLDER / f"{name}.toml"
    text = path.read_text("utf-8")
    table: dict[str, Any] = tomllib.loads(text)
    methods = tune(grid_study(name), out=out).table["methods"]
    for method in table["methods"]:
        if found := methods.get(method.get("name", method["kind"])):
            method |= {name: value for name, value in found["chosen"].items() if value is not None}  # None: left out
            print(name, method)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    path.write_text("\n".join([*comments, format_toml(table)]), "utf-8")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or GRID:
        choose(wanted, Path("runs"))
