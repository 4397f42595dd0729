"""Versions of what computes."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed"]

_PACKAGES = ("rivage", "numba", "numpy", "scipy", "torch")


def installed() -> dict[str, str]:
    """Version of Python and of the packages that numbers depend on; those that are not installed are left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # torch is an extra
            continue
    return versions
