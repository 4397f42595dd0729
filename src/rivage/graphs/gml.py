"""Networks in GML, the Graph Modelling Language; what is read of it says `rivage.graphs.graph_entries`.

References:
    Himsolt. GML: a portable graph file format. Universität Passau, 1997.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

from rivage.core.errors import ConfigError, RivageError
from rivage.graphs.graph_entries import Entry, Graph, describe
from rivage.graphs.underlay import Underlay

__all__ = ["parse_gml"]

_TOKEN = re.compile(r'(?P<blank>\s+|#[^\n]*)|(?P<string>"[^"]*")|(?P<mark>[\[\]])|(?P<word>[^\s\[\]"#]+)|(?P<bad>.)')
_DEPTH = 20  # files have three or four levels


def parse_gml(text: str, where: str = "", *, name: str = "underlay") -> Underlay:
    """The network that a GML text describes.

    Args:
        text: of the file.
        where: what it is called in errors.
        name: of the network, when the text has none.

    Raises:
        ConfigError: listing everything that is wrong, with lines.
    """
    try:
        return describe(_read_gml(text), name)
    except RivageError as error:
        raise (error.at(where) if where else error) from None


def _read_gml(text: str) -> Graph:
    """The graph of a GML text; lists other than ``graph``, ``node`` and ``edge`` are passed over."""
    graphs: list[Graph] = []
    for depth, key, value, line in _pairs(text):
        if (depth, key) == (0, "graph"):
            graphs.append(Graph(_entry(value, line)))
            for name, inner, begin in value if isinstance(value, list) else ():
                if name == "node":
                    graphs[-1].nodes.append(_entry(inner, begin))
                elif name == "edge":
                    graphs[-1].links.append(_entry(inner, begin))
    if len(graphs) != 1:
        raise ConfigError(f"{len(graphs)} graphs", mend='Give one: "graph [ node [ ... ] edge [ ... ] ]".')
    return graphs[0]


def _entry(value: Any, line: int) -> Entry:
    if not isinstance(value, list):
        raise ConfigError("a node, edge or graph without [ ... ]", where=f"line {line}", mend="Open a bracket.")
    return Entry(line, {key: inner for key, inner, _ in reversed(value) if not isinstance(inner, list)})


def _pairs(text: str) -> Iterator[tuple[int, str, Any, int]]:
    """Keys, values and lines of the outermost level; the value of a bracket is a list of such triples."""
    levels: list[list[tuple[str, Any, int]]] = [[]]
    opened: list[tuple[str, int]] = []
    key: tuple[str, int] | None = None
    for kind, token, line in _tokens(text):
        if token == "]" and kind == "mark":
            if key is not None or not opened:
                raise ConfigError('unexpected "]"', where=f"line {line}", mend="Close each bracket once, after values.")
            name, begin = opened.pop()
            inner = levels.pop()
            levels[-1].append((name, inner, begin))
        elif key is None:
            if not re.fullmatch(r"[A-Za-z]\w*", token) or kind != "word":
                raise ConfigError(f"{token[:40]} where a key belongs", where=f"line {line}", mend="Write key value.")
            key = (token, line)
        elif token == "[" and kind == "mark":
            if len(opened) == _DEPTH:
                raise ConfigError(f"more than {_DEPTH} brackets", where=f"line {line}", mend="Describe one graph.")
            opened.append(key)
            levels.append([])
            key = None
        else:
            levels[-1].append((key[0], _gml_value(kind, token, line), key[1]))
            key = None
    if opened or key is not None:
        begin = opened[-1][1] if opened else key[1] if key else 0
        raise ConfigError("the text ends inside", where=f"line {begin}", mend="Close the bracket, or give the value.")
    for name, value, line in levels[0]:
        yield 0, name, value, line


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup or "", match.group()
        if kind == "bad":
            raise ConfigError("a quotation mark without an end", where=f"line {line}", mend="Close it.")
        if kind != "blank":
            yield kind, token, line
        line += token.count("\n")


def _gml_value(kind: str, token: str, line: int) -> Any:
    if kind == "string":
        return html.unescape(token[1:-1])
    try:
        return int(token) if re.fullmatch(r"[+-]?\d{1,15}", token) else float(token)
    except ValueError:
        mend = "Give a number, or put text in quotation marks."
        raise ConfigError(f"the value {token[:40]}", where=f"line {line}", mend=mend) from None
