"""Figures and tables that scripts/figures.py makes: there, small, whole, and the same wherever they stand."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="needs the extra report")

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LARGEST = 200_000


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    """scripts/figures.py as a module."""
    spec = spec_from_file_location("rivage_figures", ROOT / "scripts" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def table_of(page: Path, name: str) -> str:
    found = re.search(rf"<!-- table {name} -->\n(.*?)<!-- end -->", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, f"{page} has no table {name}"
    return found[1].strip()


def test_every_figure_is_made_and_shown(figures: ModuleType) -> None:
    shown = {name for page in PAGES for name in re.findall(r"_figures/([\w-]+)\.svg", page.read_text(encoding="utf-8"))}
    assert shown == set(figures.FIGURES) == {path.stem for path in figures.FOLDER.glob("*")}


def test_every_figure_is_small_and_asks_for_nothing(figures: ModuleType) -> None:
    for path in figures.FOLDER.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert len(text.encode()) < LARGEST, path
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert not re.findall(r"""(?:href|src)=["'](?!#)|url\((?!#)|@import|<script""", text), path
        assert "prefers-color-scheme: dark" in text
        assert not re.findall(r"\$\S*\\math", text), f"{path}: a page has no typeset formulas"
        assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= set(re.findall(r"(--[\w-]+):#", text)), path


def test_drawing_again_gives_the_same_bytes(figures: ModuleType) -> None:
    once, again = (figures.availability(None) for _ in range(2))
    assert once == again
    assert ElementTree.fromstring(once).attrib["aria-label"].startswith("Rounds in which twelve clients")


def test_tables_are_filled_and_agree(figures: ModuleType) -> None:
    for name, (_, pages) in figures.TABLES.items():
        tables = {table_of(page, name) for page in pages}
        assert len(tables) == 1, f"{name} differs between pages"
        assert min(tables).startswith("| "), f"{name} is empty"


def test_a_table_is_replaced_and_nothing_else(figures: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table x -->\n<!-- end -->\nb\n<!-- table y -->\nold\n<!-- end -->\nc\n", encoding="utf-8")
    for _ in range(2):
        figures.replace_table(page, "x", "| 1 |")
    figures.replace_table(page, "y", "| 2 |")
    expected = "a\n<!-- table x -->\n\n| 1 |\n\n<!-- end -->\nb\n<!-- table y -->\n\n| 2 |\n\n<!-- end -->\nc\n"
    assert page.read_text(encoding="utf-8") == expected
    with pytest.raises(LookupError, match="no marks for the table z"):
        figures.replace_table(page, "z", "")


def test_an_unknown_name_is_told(figures: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures.main(["fixed_point"]) == 2
    assert "Known are: fixed-point" in capsys.readouterr().err
