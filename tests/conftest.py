"""Shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("rivage", deadline=None)  # a busy machine is no failure; pytest-timeout catches what hangs
settings.load_profile("rivage")

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def data_root(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the published files, also set as RIVAGE_DATA; the test is skipped where it is missing."""
    root = Path(os.environ.get("RIVAGE_DATA", _BESIDE))
    if not root.is_dir():
        pytest.skip(f"the published files are not on this machine (RIVAGE_DATA, or {_BESIDE})")
    monkeypatch.setenv("RIVAGE_DATA", str(root))
    return root
