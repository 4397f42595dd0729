"""Who holds which data: sources, partitions, shifts, and the populations they make."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.data.arrays import ArrayPopulation as ArrayPopulation
    from rivage.data.build import DATASETS as DATASETS
    from rivage.data.build import build_population as build_population
    from rivage.data.dataset import Arrays as Arrays
    from rivage.data.dataset import Columns as Columns
    from rivage.data.dataset import Dataset as Dataset
    from rivage.data.dataset import dataset_of as dataset_of
    from rivage.data.generative import GenerativePopulation as GenerativePopulation
    from rivage.data.partition import IID as IID
    from rivage.data.partition import PARTITIONS as PARTITIONS
    from rivage.data.partition import Dirichlet as Dirichlet
    from rivage.data.partition import Pathological as Pathological
    from rivage.data.population import ClientData as ClientData
    from rivage.data.population import ClientIds as ClientIds
    from rivage.data.population import Population as Population
    from rivage.data.population import Samples as Samples
    from rivage.data.population import Schema as Schema
    from rivage.data.readers import Digits as Digits
    from rivage.data.requests import REQUESTS as REQUESTS
    from rivage.data.requests import RequestTrace as RequestTrace
    from rivage.data.shifts import SHIFTS as SHIFTS
    from rivage.data.tables import Tables as Tables
    from rivage.data.trace_files import read_trace as read_trace
    from rivage.data.trace_files import stream_trace as stream_trace

_HOMES = {
    "REQUESTS": "requests",
    "RequestTrace": "requests",
    "read_trace": "trace_files",
    "stream_trace": "trace_files",
    "Tables": "tables",
    "Pathological": "partition",
    "IID": "partition",
    "Dirichlet": "partition",
    "Digits": "readers",
    "ArrayPopulation": "arrays",
    "Arrays": "dataset",
    "ClientData": "population",
    "ClientIds": "population",
    "Columns": "dataset",
    "DATASETS": "build",
    "Dataset": "dataset",
    "GenerativePopulation": "generative",
    "PARTITIONS": "partition",
    "Population": "population",
    "SHIFTS": "shifts",
    "Samples": "population",
    "Schema": "population",
    "build_population": "build",
    "dataset_of": "dataset",
}

__all__ = [
    "DATASETS",
    "IID",
    "PARTITIONS",
    "REQUESTS",
    "SHIFTS",
    "ArrayPopulation",
    "Arrays",
    "ClientData",
    "ClientIds",
    "Columns",
    "Dataset",
    "Digits",
    "Dirichlet",
    "GenerativePopulation",
    "Pathological",
    "Population",
    "RequestTrace",
    "Samples",
    "Schema",
    "Tables",
    "build_population",
    "dataset_of",
    "read_trace",
    "stream_trace",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"rivage.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
