"""What the user should read before a study is played."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rivage.federated.executors.executor import Executor
from rivage.studies.stage import Stage, execution_of

__all__ = ["notices"]


def notices(stage: Stage) -> Iterator[str]:
    """What the user should read before the run."""
    yield f"{stage.population.size:,} clients, {stage.task.dimension:,} parameters"
    if notice := Executor(stage.task, execution_of(stage.study)).notice:
        yield notice
    for key, value in stage.population.notes.items():
        label = key.replace("_", " ")
        if isinstance(value, Mapping):
            yield from (f"{label}, {name}: {_plain(item)}" for name, item in value.items())
        else:
            yield f"{label}: {_plain(value)}"
    if stage.study.run.log is None and stage.policy().keeps == "meta":
        yield 'the message log would exceed 256 MiB: payloads are left out (set run.log = "all" to keep them)'
    yield from _forgetting(stage)


def _forgetting(stage: Stage) -> Iterator[str]:
    """What goes wrong with methods whose clients must not be forgotten: those with an attribute ``forgetting``."""
    remembered = stage.study.run.remembered
    if remembered is None or remembered >= stage.trainable:
        return
    for method in stage.study.methods:
        if harm := getattr(method.algorithm, "forgetting", ""):
            yield (
                f"{method.name}: of {stage.trainable:,} clients run.remembered = {remembered:,} are remembered and "
                f'the others forgotten: {harm} (set run.remembered = "all")'
            )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
