"""Observers: who watches a run without being able to change it.

Whatever runs a study tells its observer what happens, as mappings with the key ``event``:

=============== ================================================= ==========================
event           other keys                                        when
=============== ================================================= ==========================
``study``       ``trials``, ``rounds`` (of all trials together)   before anything else
``trial``       ``method``, ``seed``, ``rounds``                  before each trial
``round``       ``method``, ``seed`` and the record's facts       after each round
``evaluation``  ``method``, ``seed`` and the record's facts       after each evaluation
``point``       ``done`` (steps), ``score``, the record's facts   after each point of a game
``notice``      ``text``                                          for the user to read
``trial_end``   ``method``, ``seed``                              after each trial
``study_end``                                                     at the end
=============== ================================================= ==========================

Unknown events and further keys are to be ignored. An observer may raise `KeyboardInterrupt` to stop the run: what was
committed stays, and the run resumes from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Observer", "Silent"]


class Observer(Protocol):
    """Sees every event of a run."""

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Take note; events arrive in order, from one thread."""
        ...


class Silent:
    """The observer that takes no note."""

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Ignore it."""
