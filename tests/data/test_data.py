"""The package: public names, and what importing it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rivage.data


def test_every_public_name_is_there() -> None:
    assert all(getattr(rivage.data, name) is not None for name in rivage.data.__all__)
    assert sorted(rivage.data._HOMES) == sorted(rivage.data.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = rivage.data.Nothing


@pytest.mark.process
def test_importing_loads_no_heavy_library() -> None:
    names = ["torch", "sklearn", "scipy", "pyarrow", "pydantic", "matplotlib", "networkx"]
    code = (
        "import sys, pkgutil, importlib, rivage.data, rivage.simulation.availability\n"
        "for module in pkgutil.iter_modules(rivage.data.__path__):\n"
        "    importlib.import_module('rivage.data.' + module.name)\n"
        f"print([name for name in {names} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
