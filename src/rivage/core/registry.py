"""The only plug-in look-up: ``kind`` name -> class, filled by explicit tables and by entry points.

Built-ins are written as ``"package.module:Name"`` strings, so that looking at the table imports nothing; others come
from the entry-point group of the same name. There is no registration by inheritance and no folder scanning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from rivage.core.errors import ConfigError, nearest

__all__ = ["Registry", "locate"]


def locate(target: str, *, where: str = "") -> Any:
    """The object behind ``"package.module:name"``.

    Raises:
        ConfigError: if the text is malformed, the module cannot be imported, or has no such name.
    """
    module_name, separator, name = target.partition(":")
    if not separator or not name:
        raise ConfigError(f'"{target}" is not a Python path', where=where, mend='Write it as "package.module:name".')
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'cannot import "{module_name}" ({error})',
            where=where,
            mend="Check the spelling, or add the folder that holds it to PYTHONPATH.",
        ) from error
    if not hasattr(module, name):
        raise ConfigError(
            f'"{module_name}" has no "{name}"',
            where=where,
            mend=nearest(name, vars(module)) or f'Define "{name}" there.',
        )
    return getattr(module, name)


@dataclass(frozen=True)
class Registry:
    """The classes of one kind of thing.

    Args:
        group: entry-point group, for example ``"rivage.algorithms"``.
        noun: what one member is called in messages, for example ``"method"``.
        builtin: kind name -> ``"package.module:Name"``.
    """

    group: str
    noun: str
    builtin: Mapping[str, str]

    def _plugins(self) -> dict[str, str]:
        return {point.name: point.value for point in entry_points(group=self.group)}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.builtin, *self._plugins()}))

    def get(self, kind: str, *, where: str = "") -> Any:
        """The class registered as ``kind``; built-ins win over plug-ins of the same name.

        Raises:
            ConfigError: for an unknown kind, with the nearest known one.
        """
        target = self.builtin.get(kind) or self._plugins().get(kind)
        if target is None:
            mend = nearest(kind, self) or f"Known kinds: {', '.join(self)}."
            raise ConfigError(f'unknown {self.noun} kind "{kind}"', where=where, mend=mend)
        return locate(target, where=where)
