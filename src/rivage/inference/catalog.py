"""Catalogs: the models that can be deployed, with what each needs and does on each class of hardware.

A catalog is a TOML file::

    name = "yolov4-coco"
    source = "where the figures come from"
    [[models]]
    name = "yolov4-416"
    task = "detection"
    accuracy = 0.628                       # in [0, 1], of its task
    size_mb = 246                          # or one for each class: { cpu = 246, gpu = 300 }
    delay_ms = { titan = 10.4, gtx = 28 }  # of one inference
    throughput_rps = { titan = 96 }        # 1000/delay where it is left out

Some come with rivage: `BUILT_IN` names them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from rivage.core.errors import ConfigError, RivageError, nearest, require
from rivage.core.settings import combine, read
from rivage.core.toml import load_toml, parse_toml

__all__ = ["BUILT_IN", "Catalog", "Model", "load_catalog"]

PerHardware = float | Mapping[str, float]

BUILT_IN = tuple(
    sorted(each.name.removesuffix(".toml") for each in files("rivage.inference").joinpath("catalogs").iterdir())
)
"""Names of the catalogs that come with rivage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One variant that does a task, with fixed quality.

    Args:
        name: of the model, unique in its catalog.
        task: what it does; models of one task can stand in for each other.
        accuracy: in [0, 1], larger is better.
        size_mb: memory that it needs, > 0; one number, or one for each class of hardware that can run it.
        delay_ms: of one inference, >= 0; likewise.
        throughput_rps: requests per second of a model alone, > 0; 1000/delay where it is left out.
        artifact: file or address of the model, for serving.
    """

    name: str
    task: str
    accuracy: float
    size_mb: float | Mapping[str, float]
    delay_ms: float | Mapping[str, float]
    throughput_rps: float | Mapping[str, float] | None = None
    artifact: str = ""

    def __post_init__(self) -> None:
        if problems := list(self._faults()):
            raise combine(problems)

    def _faults(self) -> Iterator[RivageError]:
        if not self.name.strip() or not self.task.strip():
            yield ConfigError(f'model "{self.name}", task "{self.task}"', mend="Name both.")
        if not 0 <= self.accuracy <= 1:
            yield ConfigError(f"accuracy is {self.accuracy:g}", mend="Give a share in [0, 1]: 62.8 % is 0.628.")
        for name, limit in (
            ("size_mb", {"above": 0.0}),
            ("delay_ms", {"least": 0.0}),
            ("throughput_rps", {"above": 0.0}),
        ):
            given = getattr(self, name)
            if given == {}:
                yield ConfigError(f"{name} names no hardware", mend="Give a number, or one for each class.")
            for what, value in _numbers(name, given):
                try:
                    require(value, what, **limit)
                except ConfigError as error:
                    yield error

    @property
    def hardware(self) -> set[str]:
        """Classes that are named."""
        return {
            key
            for each in (self.size_mb, self.delay_ms, self.throughput_rps)
            if isinstance(each, Mapping)
            for key in each
        }

    def size(self, hardware: str) -> float:
        """Megabytes; infinite where the model cannot run."""
        size = _of(self.size_mb, hardware)
        return math.inf if size is None or self.delay(hardware) is None else size

    def delay(self, hardware: str) -> float | None:
        """Milliseconds; None where the model cannot run."""
        return _of(self.delay_ms, hardware)

    def throughput(self, hardware: str) -> float | None:
        """Requests per second; None where the model cannot run."""
        delay, given = self.delay(hardware), _of(self.throughput_rps, hardware)
        if delay is None or given is not None:
            return given
        return math.inf if delay == 0 else 1000.0 / delay


def _numbers(name: str, given: PerHardware | None) -> Iterator[tuple[str, float]]:
    if isinstance(given, Mapping):
        yield from ((f"{name}.{key}", value) for key, value in given.items())
    elif given is not None:
        yield name, given


def _of(given: PerHardware | None, hardware: str) -> float | None:
    return given.get(hardware) if isinstance(given, Mapping) else given


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Models to choose from.

    Args:
        name: of the catalog.
        models: at least one, names all different.
        source: where the figures come from.
        license: under which terms.
        note: what a reader should know of the figures.
    """

    name: str = "catalog"
    models: tuple[Model, ...]
    source: str = ""
    license: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(model.name for model in self.models).items() if count > 1]
        if twice or not self.models:
            names = ", ".join(f'"{name}"' for name in twice)
            what = f"several models are called {names}" if twice else "there is no model"
            mend = "Give each [[models]] a name of its own." if twice else "Give at least one [[models]]."
            raise ConfigError(what, where=f'catalog "{self.name}"', mend=mend)

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the order in which they first appear."""
        return tuple(dict.fromkeys(model.task for model in self.models))

    @property
    def hardware(self) -> tuple[str, ...]:
        """Classes that some model names; empty when figures are the same everywhere."""
        return tuple(sorted(set[str]().union(*(model.hardware for model in self.models))))

    def copies(self, count: int) -> Catalog:
        """So many copies of every task with its models, as tasks of their own, "detection 1" and on."""
        require(count, "copies", least=1)
        if count == 1:
            return self
        models = [
            replace(model, name=f"{model.name} {copy}", task=f"{model.task} {copy}")
            for copy in range(1, count + 1)
            for model in self.models
        ]
        return replace(self, models=tuple(models))

    def unknown(self, hardware: str) -> list[str]:
        """Models that cannot run on a class of hardware."""
        return [model.name for model in self.models if not math.isfinite(model.size(hardware))]


def load_catalog(source: str | Path) -> Catalog:
    """A catalog that comes with rivage, by name, or one in a TOML file.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    name = str(source)
    if name in BUILT_IN:
        text = files("rivage.inference").joinpath("catalogs", f"{name}.toml").read_text("utf-8")
        return read(Catalog, {"name": name, **parse_toml(text, name)}, name)
    path = Path(source)
    if not path.is_file():
        mend = nearest(name, BUILT_IN) or f"Give a TOML file, or one of {', '.join(BUILT_IN)}."
        raise ConfigError(f'there is no catalog "{name}"', mend=mend)
    return read(Catalog, {"name": path.stem, **load_toml(path)}, str(path))
