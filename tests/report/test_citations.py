from __future__ import annotations

from collections.abc import Callable

from rivage.core.records import RunRecord
from rivage.report import bibtex, citation, references

PRINTED = {
    "key": "mcmahan17",
    "authors": "H. Brendan McMahan and Eider Moore and Daniel Ramage",
    "title": "Communication-Efficient Learning",
    "venue": "AISTATS",
    "year": 2017,
    "arxiv": "1602.05629",
    "part": "Algorithm 1",
}


def test_citation_reads_as_a_sentence() -> None:
    assert citation(PRINTED) == (
        "H. Brendan McMahan, Eider Moore and Daniel Ramage. Communication-Efficient Learning. AISTATS, 2017. "
        "arXiv:1602.05629."
    )
    alone = {**PRINTED, "authors": "Leo Breiman", "arxiv": ""}
    assert citation(alone) == "Leo Breiman. Communication-Efficient Learning. AISTATS, 2017."


def test_bibtex() -> None:
    assert bibtex(PRINTED) == (
        "@inproceedings{mcmahan17,\n"
        "  author = {H. Brendan McMahan and Eider Moore and Daniel Ramage},\n"
        "  title = {{Communication-Efficient Learning}},\n"
        "  booktitle = {AISTATS},\n"
        "  year = {2017},\n"
        "  eprint = {1602.05629},\n"
        "  archiveprefix = {arXiv},\n"
        "}"
    )


def test_bibtex_names_the_venue_as_its_type_does() -> None:
    book = bibtex({**PRINTED, "entry": "book", "venue": "Wadsworth"})
    assert book.startswith("@book{mcmahan17,")
    assert "  publisher = {Wadsworth}," in book
    assert "AISTATS" not in bibtex({**PRINTED, "entry": "misc"})


def test_each_publication_once_with_its_uses(make_run: Callable[..., RunRecord]) -> None:
    ((reference, uses),) = references([make_run(rounds=1)])
    assert reference["key"] == "mcmahan17"
    assert uses == ["fedavg: Algorithm 1", "fedavg+: Algorithm 1"]
