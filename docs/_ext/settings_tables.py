"""Tables of settings, made from the dataclasses that read them: the reference cannot fall behind the code.

- ``{settings} package.module:Name``       the keys of one dataclass
- ``{kinds} package.module:REGISTRY``      every built-in kind of a registry, with its keys

Meanings are the ``Args`` of the class's docstring.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from rivage.core.registry import Registry, locate
from rivage.core.schema import Field, describe, fields_of
from rivage.core.toml import format_toml


def arguments_of(docstring: str) -> dict[str, str]:
    """Name -> meaning, from the ``Args`` section of a Google docstring."""
    section = re.search(r"^Args:\n((?:[ ]{4}.*\n|\n)*)", docstring + "\n", re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): ((?:.*\n)(?:^ {8}.*\n)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.replace("``", "`").split()) for name, text in entries}


def default_of(field: Field) -> str:
    """The default as a study would write it."""
    if field.required:
        return "required"
    if field.default is None:
        return "left out"
    members = field.default if isinstance(field.default, tuple) else (field.default,)
    if field.default is Field or any(map(is_dataclass, members)):
        return "its defaults"
    if field.default == ():
        return "`[]`"
    text = " ".join(format_toml({"x": field.default}).removeprefix("x = ").split())
    text = re.sub(r"^\[ (.*), \]$", r"[\1]", text)  # arrays come on several lines; a cell has one
    return f"`{text}`"


def table(cls: Any) -> str:
    """The keys of a dataclass as a Markdown table."""
    fields, meanings = [f for f in fields_of(cls) if not f.flat], arguments_of(inspect.getdoc(cls) or "")
    if not fields:
        return "No settings.\n"
    cells = [(f"`{f.name}`", describe(f.hint, f), default_of(f), meanings.get(f.name, "")) for f in fields]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def summary(cls: Any) -> str:
    """The first line of a docstring, without references to Python names."""
    return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`")


class Settings(SphinxDirective):
    """The keys of one dataclass."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table."""
        return list(self.parse_text_to_nodes(table(locate(self.arguments[0]))))


class Kinds(SphinxDirective):
    """Every built-in kind of a registry."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """One paragraph and one table for each."""
        registry: Registry = locate(self.arguments[0])
        classes = {kind: registry.get(kind) for kind in sorted(registry.builtin)}
        parts = [f'**`kind = "{kind}"`** {summary(cls)}\n\n{table(cls)}' for kind, cls in classes.items()]
        return list(self.parse_text_to_nodes("\n".join(parts)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("settings", Settings)
    app.add_directive("kinds", Kinds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
