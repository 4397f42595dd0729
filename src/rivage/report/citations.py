"""The publications behind the methods of a run: as text for readers, as BibTeX for their papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rivage.core.records import RunRecord

__all__ = ["bibtex", "citation", "references"]

Reference = Mapping[str, Any]


def references(records: Sequence[RunRecord]) -> list[tuple[Reference, list[str]]]:
    """Each publication once, with what implements it (``"fedavg: Algorithm 1"``), in order of first use."""
    found: dict[str, tuple[Reference, list[str]]] = {}
    for trial in (trial for record in records for trial in record.trials):
        own = trial.start.get("reference")
        for reference in [*([own] if own else []), *trial.start.get("rests_on", ())]:
            _, uses = found.setdefault(str(reference["key"]), (reference, []))
            part = reference.get("part")
            name = str(trial.start.get("policy", trial.method))
            use = f"{name}: {part}" if part else name
            if use not in uses:
                uses.append(use)
    return list(found.values())


def citation(reference: Reference) -> str:
    """Authors, title, venue, year and arXiv identifier, as a sentence."""
    *most, last = str(reference["authors"]).split(" and ")
    authors = f"{', '.join(most)} and {last}" if most else last
    arxiv = f" arXiv:{reference['arxiv']}." if reference.get("arxiv") else ""
    return f"{authors}. {reference['title']}. {reference['venue']}, {reference['year']}.{arxiv}"


def bibtex(reference: Reference) -> str:
    """The BibTeX entry of a reference as the records hold it; the title keeps its capitals."""
    entry = reference.get("entry", "inproceedings")
    venue = {"inproceedings": "booktitle", "article": "journal", "book": "publisher"}.get(entry)
    fields = {
        "author": reference["authors"],
        "title": f"{{{reference['title']}}}",
        venue: reference["venue"],
        "year": reference["year"],
        "eprint": reference.get("arxiv"),
        "archiveprefix": "arXiv" if reference.get("arxiv") else None,
    }
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items() if key and value]
    return "\n".join([f"@{entry}{{{reference['key']},", *lines, "}"])
