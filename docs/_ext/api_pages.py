"""Writes one reference page per public package into docs/reference/api, from the files of src/rivage.

Pages follow the tree: a new module appears in the reference without anyone listing it. Only files are read
here; autodoc imports the modules later.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

SOURCE = Path(__file__).parents[2] / "src" / "rivage"
NOT_PUBLIC = {"cli"}  # described by its commands, on a page of its own


def modules_of(package: Path) -> list[str]:
    """Dotted names of the modules below a package folder, subpackages included."""
    found = (path for path in sorted(package.rglob("*.py")) if not path.name.startswith("_"))
    return [".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in found]


def page(name: str, modules: list[str]) -> str:
    """The Markdown of one package."""
    directives = [f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n" for module in modules]
    return "\n".join([f"# rivage.{name}\n", *directives])


def write_pages(app: Sphinx) -> None:
    """Write the pages that changed and remove those whose package is gone."""
    folder = Path(app.srcdir) / "reference" / "api"
    folder.mkdir(parents=True, exist_ok=True)
    packages = [path.parent for path in sorted(SOURCE.glob("*/__init__.py")) if path.parent.name not in NOT_PUBLIC]
    pages = {
        f"{package.name}.md": page(package.name, modules_of(package)) for package in packages if modules_of(package)
    }
    for stale in {path.name for path in folder.glob("*.md")} - pages.keys():
        (folder / stale).unlink()
    for file, text in pages.items():
        path = folder / file
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def mend_markup(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Read ``|batch|`` as a formula and a plural after a name as text, as docstrings mean them."""
    for number, line in enumerate(lines):
        line = re.sub(r"(?<!`)(`[\w.]+`)(?=\w)", r"\1\\ ", line)
        lines[number] = re.sub(r"(?<!\\)\|(?=\w[^|]*\|)", r"\\|", line) if "``" not in line else line


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", mend_markup)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
