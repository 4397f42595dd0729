"""Files beside the code say the same as the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import rivage

ROOT = Path(__file__).parents[2]


def locked() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_citation_names_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, re.MULTILINE)[1] == rivage.__version__  # type: ignore[index]


def test_the_lock_is_exact_and_begins_with_torch() -> None:
    lines = locked()
    assert lines[0].startswith("torch==")
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!]+", line) for line in lines), "versions, nothing else"


def test_the_lock_covers_every_direct_dependency() -> None:
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    names = {normal(re.match(r"[\w.-]+", need)[0]) for need in wanted} - {"rivage"}  # type: ignore[index]
    assert names <= {normal(line.partition("==")[0]) for line in locked()}
