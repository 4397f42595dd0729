"""The figure of docs/tutorials/audit-a-run.md, from the page's own data and study, all attacks; about a minute.

.venv/bin/python scripts/figures_audit.py
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

from rivage.report.audit_figures import leakage
from rivage.studies.audit_settings import Auditing
from rivage.studies.auditing import audit_run
from rivage.studies.pipeline import run_study
from rivage.studies.settings import load_study

NAME = "audit-clinics"
PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "audit-a-run.md"


def audited(folder: Path) -> dict[str, Any]:
    """What the page audits, with every attack."""
    text = PAGE.read_text(encoding="utf-8")
    (make, *_), (study, *_) = (
        re.findall(rf"^```{info}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for info in ("python", "toml file=clinics.toml")
    )
    with chdir(folder):
        exec(compile(make, str(PAGE), "exec"), {})
        Path("clinics.toml").write_text(study, encoding="utf-8")
        record = run_study(load_study(Path("clinics.toml")), out=folder / "runs")
        return audit_run(record, Auditing(attribute="smoker", budget=0.0))


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    with tempfile.TemporaryDirectory() as folder:
        found = audited(Path(folder))
    return standalone(leakage(found, name=NAME) or "")


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    draw(Path(__file__).parents[1] / "docs" / "_figures")
