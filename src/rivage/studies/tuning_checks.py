"""The certificate of a tuned method, computed from ``tuning.json`` and the record of the run.

Where the trials that were tried still lie beside the run, what ``tuning.json`` says of them is held against them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rivage.core.certificates import Certificate
from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.core.store import read_json
from rivage.core.summaries import weighted_mean
from rivage.core.trial_records import TrialRecord
from rivage.studies.tuning_grid import label

__all__ = ["TUNING", "best", "trial_name", "tuned", "tuning_of", "value_of"]

TUNING = "tuning.json"
"""What was tried, in the folder of the run that plays what was chosen."""

Tried = Mapping[str, Any]
"""One trial: ``settings``, ``value`` and ``loss`` on validation records, None where training diverged."""


def tuning_of(record: RunRecord) -> dict[str, Any] | None:
    """What was tried for a run; None where nothing was.

    Raises:
        StoreError: if the file holds something else.
    """
    path = record.folder / TUNING
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("methods"), dict):
        raise StoreError("holds no trials of settings", where=str(path), mend="Delete it, and tune again.")
    return found


def best(tried: Sequence[Tried], *, higher_is_better: bool) -> int:
    """Position of the best trial by value; of equal ones that of smaller loss, then the first. Diverged ones are last.

    Args:
        tried: at least one.
        higher_is_better: direction of the values.
    """

    def rank(place: int) -> tuple[float, float, int]:
        value, loss = (_number(tried[place][key]) for key in ("value", "loss"))
        return (-value if higher_is_better else value, loss, place)

    return min((place for place in range(len(tried)) if _number(tried[place]["value"]) < math.inf), key=rank, default=0)


def _number(value: float | None) -> float:
    return math.inf if value is None or not math.isfinite(value) else float(value)


def trial_name(method: str, values: Mapping[str, Any]) -> str:
    """The name of a method with the settings that are tried."""
    return f"{method} ({label(values)})"


def value_of(event: Mapping[str, Any], compared: str) -> float | None:
    """What an evaluation is worth: the loss or the metric on validation records, weighted by their number."""
    column = "validation_loss" if compared == "loss" else "validation"
    return weighted_mean(event[column], event["validation_size"])


def tuned(record: RunRecord, *, method: str) -> Certificate:
    """Does the run play the best of the settings that were tried, out of as many as every other method had?"""
    table = tuning_of(record)
    if table is None or method not in table["methods"]:
        raise StoreError(f'"{method}" was not tuned', where=str(record.folder / TUNING), mend="Tune and run again.")
    found, higher = table["methods"][method], bool(table["higher_is_better"])
    tried, values = found["trials"], [trial["value"] for trial in found["trials"]]
    known = [value for value in values if value is not None]
    wanted = (max if higher else min)(known, default=math.nan)
    place = next((i for i, trial in enumerate(tried) if trial["settings"] == found["chosen"]), None)
    taken = math.nan if place is None or values[place] is None else float(values[place])
    equal = {len(other["trials"]) for other in table["methods"].values()} == {len(tried)}
    distinct = len({repr(sorted(trial["settings"].items())) for trial in tried}) == len(tried)
    sound = place is not None and place == best(tried, higher_is_better=higher) and equal and distinct
    told = _direction(record, method, table) and _as_trained(record, method, table)
    return Certificate(
        kind="gap",
        claim=f"{method} plays the best on validation records of {len(tried)} settings, as many as every tuned method "
        "had.",
        measured=taken,
        reference=wanted,
        method=f"{table['value']} on validation records, weighted by their number, after the last of {table['rounds']} "
        f"rounds with seed {table['seed']}; {len(values) - len(known)} trials diverged; test records were not used",
        confidence=None,
        verdict="holds" if sound and told and known and _plays(record, method, found["chosen"]) else "fails",
        check="tuned",
        fields={"method": method},
    )


def _plays(record: RunRecord, method: str, chosen: Mapping[str, Any]) -> bool:
    """Whether the settings of the run are those chosen; None is a word, or left out, in settings."""
    table: Mapping[str, Any] = next((m for m in record.settings["methods"] if m.get("name", m["kind"]) == method), {})
    return all(
        isinstance(table.get(name), str | None) if value is None else table.get(name) == value
        for name, value in chosen.items()
    )


def _direction(record: RunRecord, method: str, table: Mapping[str, Any]) -> bool:
    """Whether values were compared as the metric of the run, or a loss, asks for."""
    start = record.trial(method, record.seeds[0]).start
    higher, loss = bool(start["higher_is_better"]), table["value"] == "loss"
    return bool(table["higher_is_better"]) == (higher and not loss) and (loss or table["value"] == start["metric"])


def _as_trained(record: RunRecord, method: str, table: Mapping[str, Any]) -> bool:
    """Whether the trials beside the run, if they are still there, say what the table does."""
    folder = record.folder.parent / Path(str(table["run"])).name
    if not (folder / "settings.toml").exists():
        return True
    trials = RunRecord(folder)
    for entry in table["methods"][method]["trials"]:
        trial = TrialRecord.open(trials.trial_folder(trial_name(method, entry["settings"]), table["seed"]))
        event = None if trial.events("failed") else trial.final()
        if not trial.finished or entry["value"] != (None if event is None else value_of(event, str(table["value"]))):
            return False
    return True
