from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rivage.core.records import RunRecord
from rivage.report import bibtex, citation, references
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study

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


def test_noise_stages_and_collectors_are_cited_too(tmp_path: Path) -> None:
    """Each under the method that rests on it."""
    study = """
        name = "cited"
        data = { kind = "digits" }
        partition = { kind = "iid", clients = 6 }
        task = { model = "linear" }
        run = { rounds = 1, cohort = 3, sampling = "epochs" }
        [[methods]]
        kind = "fedavg"
        collector = { kind = "dp_ftrl" }
        [[methods]]
        name = "robust"
        kind = "fedavg"
        collector = { kind = "median" }
        [[methods]]
        name = "records"
        kind = "fedavg"
        work = { batches = "poisson", denominator = "expected", clip = 1.0, noise = 1.0, batch_size = "all" }
    """
    found = references([run_study(parse_study(study), out=tmp_path)])
    assert {reference["key"]: uses for reference, uses in found} == {
        "mcmahan17": ["fedavg: Algorithm 1", "robust: Algorithm 1", "records: Algorithm 1"],
        "kairouz21": ["fedavg: Algorithm 1"],
        "yin18": ["robust: median"],
        "abadi16": ["records: noise in every step, Algorithm 1"],
    }
