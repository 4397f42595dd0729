"""The figure of docs/tutorials/size-a-cache.md: the run that a reader of that page makes."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from rivage.core.records import RunRecord
from rivage.report.games.cache_figures import cost_by_capacity
from rivage.report.theme import looks

__all__ = ["shop"]

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "size-a-cache.md"


def shop(folder: Path) -> str:
    """Cost against capacity, drawn from the trace that the page makes."""
    from rivage.studies.play import play_study
    from rivage.studies.play_settings import short_play

    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)[0]
    with contextlib.chdir(folder):
        exec(compile(code, str(PAGE), "exec"), {})
        record = play_study(short_play(Path("shop.csv"), None, (), None), out=Path("runs"))
        return _drawn(record)


def _drawn(record: RunRecord) -> str:
    styles = looks((str(trial.start["policy"]), trial.kind) for trial in record.trials)
    svg = cost_by_capacity(record, styles, name="cost-by-capacity", legend=True)
    assert svg is not None, "there are several capacities"
    return svg
