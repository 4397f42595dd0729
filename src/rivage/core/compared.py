"""What the settings of a run compare: methods of training, or the policies, planners or overlays of a game."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["compared", "names", "verb"]

_VERBS = {"policies": "play", "planners": "place", "overlays": "design"}


def compared(settings: Mapping[str, Any]) -> str:
    """The table of what is compared, which the summary has too: policies, planners, overlays, methods."""
    return next((table for table in _VERBS if table in settings), "methods")


def verb(settings: Mapping[str, Any]) -> str:
    """The command that makes such a run: ``play``, ``place``, ``design``, or ``train``."""
    return _VERBS.get(compared(settings), "train")


def names(settings: Mapping[str, Any]) -> list[str]:
    """Of what is compared, in the order of the settings; where there are methods beside a game, theirs."""
    entries: list[Any] = next((settings[table] for table in ("methods", *_VERBS) if table in settings), [])
    return [str(each.get("name", each.get("kind"))) for each in entries if isinstance(each, dict)]
