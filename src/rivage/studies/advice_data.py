"""What `rivage advise` is given, as a study without its answer: a folder of tables, arrays, a study, a kind of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rivage.core.errors import ConfigError, DataError, nearest
from rivage.core.toml import format_toml, load_toml
from rivage.data.build import DATASETS
from rivage.data.dataset import Dataset
from rivage.federated.registry import ALGORITHMS
from rivage.federated.trial import judged
from rivage.studies.settings import Study, parse_study
from rivage.studies.stage import Stage

__all__ = ["COMPARED", "FEWEST", "GUARDED", "LOCAL", "question", "require_enough"]

LOCAL, GUARDED = "local", "guarded"
COMPARED = (LOCAL, "fedavg", "fedavg+", "knnper", "ditto", "fedem")
"""Kinds that are compared, each against all: Local, then from simple to complicated."""

FEWEST = 20
"""Test records, and validation records, over all clients, below which nothing can be said."""

_LEFT_OUT = ("name", "methods", "underlay", "silos", "times")
"""Tables of a study that are about methods: its own are not compared."""
_SPLIT = {"kind": "dirichlet", "clients": 20, "alpha": 0.3}


def question(data: str, target: str | None = None, overrides: Sequence[str] = ()) -> tuple[Study, tuple[str, ...]]:
    """The study whose methods are those of `COMPARED` and the guarded one, and what the user should be told of it.

    Args:
        data: a folder of tables, an ``.npz`` file, the TOML file of a study, or a kind of data.
        target: column to predict, for tables.
        overrides: ``KEY=VALUE`` as for `rivage.core.toml.apply_overrides`.

    Raises:
        ConfigError: for data that are none of these, or a target too many or too few.
        DataError: for data that cannot be used.
    """
    mapping, notices = _mapping(data, target)
    kinds = [kind for kind in (*COMPARED, GUARDED) if kind in ALGORITHMS]
    mapping = {**mapping, "methods": [{"kind": kind} for kind in kinds]}
    return parse_study(format_toml(mapping), data, overrides), notices


def _mapping(data: str, target: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    path = Path(data)
    if path.is_dir():
        return {"name": path.resolve().name, "data": _tables(path, target)}, ()
    if target is not None:
        raise ConfigError(f'"{data}" is no folder of tables', where="--target", mend=_without_target(path))
    if path.suffix == ".npz":
        return _arrays(path), ()
    if path.suffix == ".toml":
        table = load_toml(path)
        kept = {name: part for name, part in table.items() if name not in _LEFT_OUT}
        return {"name": table.get("name", path.stem), **kept}, ()
    return _kind(data)


def _without_target(path: Path) -> str:
    """What to do about a target of what is no folder."""
    if path.suffix in {".csv", ".parquet"} and path.exists():
        return f'Give the folder that holds one table per client, such as "{path.parent}".'
    if path.exists() or path.name in DATASETS:
        return "Leave it out; a study names the target in [data]."
    return "There is no such folder. Give one that holds one table per client."


def _tables(folder: Path, target: str | None) -> dict[str, Any]:
    if target is None:
        raise ConfigError(
            "the column to predict is not known",
            where=f'folder "{folder}"',
            mend=f"Name it with --target COLUMN.{_columns(folder)}",
        )
    return {"kind": "tables", "folder": folder.as_posix(), "target": target}


def _columns(folder: Path) -> str:
    """Those of the first CSV file, as a hint."""
    files = sorted(folder.glob("*.csv"))
    if not files:
        return ""
    with files[0].open(encoding="utf-8", errors="replace") as stream:
        return f" {files[0].name} has the columns: {stream.readline(2000).strip()}."


def _arrays(path: Path) -> dict[str, Any]:
    table = {"kind": "arrays", "path": path.as_posix()}
    if not _is_split(DATASETS.get("arrays")(path=path)):
        raise DataError(
            'the records are not split into clients: there is no array "client"',
            where=str(path),
            mend="Add one value per record, the name or number of its client; or write a study with [partition].",
        )
    return {"name": path.stem, "data": table}


def _kind(kind: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    if kind not in DATASETS:
        known = f"Give a folder of tables, an .npz file, the TOML file of a study, or one of: {', '.join(DATASETS)}."
        raise ConfigError(
            f'there is no "{kind}"', where="rivage advise", mend=f"{known} {nearest(kind, DATASETS)}".strip()
        )
    try:
        source = DATASETS.get(kind)()
    except TypeError:
        mend = "Write a study with [data], and give its file."
        raise ConfigError(f'data "{kind}" need settings', where="rivage advise", mend=mend) from None
    mapping = {"name": kind, "data": {"kind": kind}}
    if not hasattr(source, "load") or _is_split(source):
        return mapping, ()
    text = f"{kind} is not split into clients: dealt to {_SPLIT['clients']} by Dirichlet, alpha {_SPLIT['alpha']}"
    return {**mapping, "partition": _SPLIT}, (text,)


def _is_split(source: Any) -> bool:
    loaded = source.load(0)
    return not isinstance(loaded, Dataset) or loaded.clients is not None or loaded.natural is not None


def require_enough(stage: Stage) -> Mapping[str, int]:
    """Refuse clients among whom a comparison cannot say anything; the counts that let them pass.

    Raises:
        DataError: for a single client, or too few records to test or to choose with.
    """
    population = stage.population
    if population.size < 2:
        raise DataError(
            "there is one client, which has nobody to train with",
            where=f'data of "{stage.study.name}"',
            mend="Give the records of several sites, each as a client of its own.",
        )
    people = [population.client(client) for client in judged(population.size, stage.seed).tolist()]
    found = {part: sum(len(getattr(each, part)) for each in people) for part in ("train", "validation", "test")}
    for part in ("validation", "test"):
        if found[part] < FEWEST:
            share = getattr(stage.study.evaluation, part)
            raise DataError(
                f"{found[part]} {part} records over all {population.size} clients are too few: no method could be told "
                "from another",
                where=f'data of "{stage.study.name}"',
                mend=f"Give at least {FEWEST}: more records, or a share larger than {share:g}, as with "
                f"--set evaluation.{part}=0.3.",
            )
    return {"clients": population.size, **found}
