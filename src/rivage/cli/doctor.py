"""What this installation can do. Nothing optional is imported: only package metadata are read."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from rivage import __version__
from rivage.cli.output import table

__all__ = ["examine", "rows"]

_EXTRA_OF = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")
_NAME_OF = re.compile(r"[\w.-]+")
_FOR_USERS = ("train", "report", "privacy", "knn", "testing")


def examine() -> dict[str, Any]:
    """Versions, extras, cores, data folder, and whether runs can be written here; JSON values only."""
    return {
        "rivage": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "cores": _cores(),
        "packages": {name: _version(name) for name in ("numpy", "scipy", "torch")},
        "extras": extras(requires("rivage") or ()),
        "data": _data_folder(),
        "folder": {"path": str(Path.cwd()), "writable": _writable(Path.cwd())},
    }


def extras(requirements: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Extra -> what it needs that is ``missing``, and the ``command`` that installs it (None if nothing is).

    Args:
        requirements: as in package metadata, ``torch>=2.9; extra == "train"``.
    """
    missing: dict[str, list[str]] = {name: [] for name in _FOR_USERS}
    for requirement in requirements:
        extra, name = _EXTRA_OF.search(requirement), _NAME_OF.match(requirement)
        if extra and name and extra[1] in missing and _version(name[0]) is None:
            missing[extra[1]].append(name[0])
    return {
        name: {"missing": absent, "command": f'pip install "rivage[{name}]"' if absent else None}
        for name, absent in missing.items()
    }


def rows(found: dict[str, Any]) -> list[Sequence[str]]:
    """The findings as a table."""
    data, folder = found["data"], found["folder"]
    lines = [("platform", found["platform"]), ("cores", str(found["cores"]))]
    lines += [(name, installed or "not installed") for name, installed in found["packages"].items()]
    for name, extra in found["extras"].items():
        absent = f"{', '.join(extra['missing'])} missing; install with: {extra['command']}"
        lines.append((f"extra {name}", absent if extra["missing"] else "complete"))
    where = "not set; data sets that are files need it or a folder of their own"
    exists = "" if data["exists"] else " (does not exist)"
    lines.append(("RIVAGE_DATA", f"{data['path']}{exists}" if data["path"] else where))
    lines.append(
        (
            "this folder",
            f"{folder['path']} ({'writable' if folder['writable'] else 'not writable: use --out'})",
        )
    )
    return table(("what", "state"), lines)


def _cores() -> int:
    """Cores this process may use, which in a container are often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _data_folder() -> dict[str, Any]:
    path = os.environ.get("RIVAGE_DATA")
    return {"path": path, "exists": path is not None and Path(path).is_dir()}


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
