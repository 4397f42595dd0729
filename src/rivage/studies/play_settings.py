"""Study files of online policies: the table that says what is played decides about the schema.

``parse_play(format_toml(dump(study))) == study``. Nothing here imports a policy before a study names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rivage.core.errors import ConfigError
from rivage.core.settings import read
from rivage.core.toml import apply_overrides, load_toml, parse_toml
from rivage.studies.games.study import STUDIES, GameStudy

__all__ = ["load_play", "make_play", "parse_play", "short_play"]


def load_play(path: Path, overrides: Sequence[str] = ()) -> GameStudy:
    """The study in a TOML file; without a ``name`` it is called after the file.

    Args:
        path: of the file.
        overrides: ``KEY=VALUE`` as for `rivage.core.toml.apply_overrides`.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    return make_play({"name": path.stem, **load_toml(path)}, str(path), overrides)


def parse_play(text: str, where: str = "", overrides: Sequence[str] = ()) -> GameStudy:
    """The study in a TOML text.

    Raises:
        ConfigError: listing everything that is wrong, after the place ``where``.
    """
    return make_play(parse_toml(text, where), where, overrides)


def make_play(mapping: dict[str, Any], where: str = "", overrides: Sequence[str] = ()) -> GameStudy:
    """The study that a mapping describes.

    Raises:
        ConfigError: listing everything that is wrong, after the place ``where``.
    """
    if overrides:
        mapping = apply_overrides(mapping, overrides)
        where = " ".join([where, "with", *(f"--set {override}" for override in overrides)]).strip()
    mapping = {key: value for key, value in mapping.items() if key != "planners"}  # for `rivage place`
    tables = [table for table in STUDIES if table in mapping]
    if len(tables) > 1:
        raise ConfigError(
            f"the tables {' and '.join(f'[{table}]' for table in tables)} describe different games",
            where=where,
            mend="Keep one of them.",
        )
    schema: type[GameStudy] = STUDIES.get(tables[0] if tables else "cache")
    return read(schema, mapping, where)


def short_play(
    trace: Path, format: str | None, capacities: Sequence[str], policies: str | None, overrides: Sequence[str] = ()
) -> GameStudy:
    """The study of a trace file, as the options of the command line describe it.

    Args:
        trace: the file.
        format: of the file; None to find out.
        capacities: numbers of items or shares; several shares when empty.
        policies: kinds joined by commas; some when None.
        overrides: as for `load_play`.
    """
    asked = [int(each) if each.strip().isdecimal() else each.strip() for each in capacities or _SHARES]
    kinds = [kind.strip() for kind in (_POLICIES if policies is None else policies).split(",") if kind.strip()]
    if not kinds:
        raise ConfigError(
            f'there is no policy in "{policies}"', where="--policies", mend="Give kinds, such as lru,ogb."
        )
    mapping = {
        "name": trace.name.partition(".")[0] or "play",
        "trace": {"kind": "file", "path": trace.as_posix(), **({} if format is None else {"format": format})},
        "cache": {"capacity": asked[0] if len(asked) == 1 else asked},
        "policies": [{"kind": kind} for kind in kinds],
    }
    return make_play(mapping, "", overrides)


_SHARES = ("1%", "2%", "5%", "10%", "20%")
_POLICIES = "ogb,adaptive,lru,s3fifo,static"
