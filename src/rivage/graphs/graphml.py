"""Networks in GraphML, as the Internet Topology Zoo has them; what is read says `rivage.graphs.graph_entries`.

References:
    Brandes, Eiglsperger, Herman, Himsolt, Marshall. GraphML progress report. Graph Drawing, 2001.
"""

from __future__ import annotations

from typing import Any
from xml.parsers import expat

from rivage.core.errors import ConfigError, RivageError
from rivage.graphs.graph_entries import Entry, Graph, describe
from rivage.graphs.underlay import Underlay

__all__ = ["parse_graphml"]


def parse_graphml(text: str, where: str = "", *, name: str = "underlay") -> Underlay:
    """The network that a GraphML text describes; arguments and errors as for `parse_gml`."""
    try:
        return describe(_Reader().read(text), name)
    except RivageError as error:
        raise (error.at(where) if where else error) from None


class _Reader:
    """One pass over the elements of a GraphML text."""

    def __init__(self) -> None:
        self.graphs: list[Graph] = []
        self.keys: dict[str, tuple[str, str]] = {}  # id -> name and type
        self.defaults: list[tuple[str, str, Any]] = []  # for which element, name, value
        self.open: list[Entry] = []
        self.key: str | None = None
        self.domain = ""
        self.text = ""
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.StartDoctypeDeclHandler = self.refuse

    def read(self, text: str) -> Graph:
        try:
            self.parser.Parse(text.encode(), True)
        except expat.ExpatError as error:
            mend = "Give a GraphML file."
            what = f"not valid XML: {expat.ErrorString(error.code)}"
            raise ConfigError(what, where=f"line {error.lineno}", mend=mend) from None
        if len(self.graphs) != 1:
            raise ConfigError(f"{len(self.graphs)} graphs", mend="Give one <graph>.")
        graph = self.graphs[0]
        for domain, name, value in self.defaults:
            for entry in {"node": graph.nodes, "edge": graph.links}.get(domain, []):
                entry.values.setdefault(name, value)
        return graph

    def refuse(self, *_: object) -> None:
        raise ConfigError("a document type", where=self.place, mend="Remove <!DOCTYPE ...>; GraphML needs none.")

    @property
    def place(self) -> str:
        return f"line {self.parser.CurrentLineNumber}"

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        line = self.parser.CurrentLineNumber
        if tag == "key":
            self.keys[attributes.get("id", "")] = (attributes.get("attr.name", ""), attributes.get("attr.type", ""))
            self.key, self.domain = attributes.get("id", ""), attributes.get("for", "all")
        elif tag == "graph":
            if self.open:
                raise ConfigError("a graph inside a graph", where=self.place, mend="Describe one graph.")
            self.graphs.append(Graph(Entry(line, {"directed": attributes.get("edgedefault", "undirected")})))
            self.open.append(self.graphs[-1].head)
        elif tag in ("node", "edge") and self.graphs:
            entry = Entry(line, {name: attributes[name] for name in ("id", "source", "target") if name in attributes})
            if attributes.get("directed", "false") != "false":
                raise ConfigError("a directed link", where=self.place, mend="Give each link once, undirected.")
            (self.graphs[-1].nodes if tag == "node" else self.graphs[-1].links).append(entry)
            self.open.append(entry)
        elif tag == "hyperedge":
            raise ConfigError("a link of more than two nodes", where=self.place, mend="Give links of two nodes.")
        elif tag == "data":
            self.key = attributes.get("key")
        self.text = ""

    def characters(self, text: str) -> None:
        self.text += text

    def end(self, tag: str) -> None:
        tag = tag.rpartition(":")[2]
        if tag in ("data", "default") and self.key is not None:
            name, kind = self.keys.get(self.key, ("", ""))
            value = self.value(name, kind)
            if tag == "default":
                self.defaults.append((self.domain, name, value))
            elif self.open and name not in ("id", "source", "target"):
                self.open[-1].values.setdefault(name, value)
        elif tag in ("graph", "node", "edge") and self.open:
            self.open.pop()

    def value(self, name: str, kind: str) -> Any:
        if kind not in ("int", "long", "float", "double"):
            return self.text
        try:
            return float(self.text)
        except ValueError:
            raise ConfigError(f'{name} is "{self.text[:40]}"', where=self.place, mend="Give a number.") from None
