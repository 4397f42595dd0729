"""What a run says in sentences: the headline, how far it got, what its numbers compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivage.core.records import RunRecord
from rivage.core.summaries import local_method
from rivage.report.tables import Lead, leader, number, percent, with_spread

__all__ = ["answer", "compared", "progress", "shown", "title"]

Summary = Mapping[str, Mapping[str, Any]]


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shown(name: str, width: int = 30) -> str:
    """A name, cut where it would not fit."""
    return name if len(name) <= width else name[: width - 1] + "…"


def title(record: RunRecord) -> str:
    """The name of the study."""
    return str(record.settings.get("name") or record.folder.name)


def compared(record: RunRecord, summary: Summary) -> str:
    """What was compared, on how many clients: ``"4 methods on 20 clients (5 unseen), 3 seeds, 50 rounds"``."""
    if not summary:
        return "No method has begun."
    population = record.trials[0].start["population"]
    unseen = len(population.get("unseen", ()))
    clients = _count(int(population["size"]), "client") + (f" ({unseen} unseen in training)" if unseen else "")
    rounds = max(row["rounds"] for row in summary.values())
    return (
        f"{_count(len(summary), 'method')} on {clients}, {_count(len(record.seeds), 'seed')}, {_count(rounds, 'round')}"
    )


def answer(record: RunRecord, summary: Summary) -> str:
    """Which method is best for the average client and for the worst tenth, and whether personal models were safe."""
    lead = leader(summary, "mean", "std")
    if lead.first is None:
        return "No client has a defined test metric yet: there is no answer to report."
    row = summary[lead.first]
    text = (
        f"{lead.first} has the best mean {row['metric']}, {with_spread(row['mean'], row['std'])}{_doubt(summary, lead)}"
    )
    return f"{text}; {_decile(summary, lead.first)}{_guarded(record, summary)}."


def _doubt(summary: Summary, lead: Lead) -> str:
    """What a reader must know before trusting a lead that is not clear."""
    if lead.second is None or lead.clear:
        return ""
    assert lead.first is not None, "a second implies a first"
    if summary[lead.first]["std"] is None or summary[lead.second]["std"] is None:
        return " (one seed: the spread is unknown)"
    return f" ({lead.second} is within one standard deviation)"


def _decile(summary: Summary, best: str) -> str:
    lowest = leader(summary, "bottom_decile", "bottom_decile_std").first
    assert lowest is not None, "a mean was defined"
    subject = "it also has" if lowest == best else f"{lowest} has"
    return f"{subject} the best bottom decile, {number(summary[lowest]['bottom_decile'])}"


def _guarded(record: RunRecord, summary: Summary) -> str:
    """The first guarded method against Local, when the run has both."""
    local = local_method(record)
    name = next((method for method, row in summary.items() if row["kind"] == "guarded"), None)
    if local is None or name is None or None in (summary[name]["mean"], summary[local]["mean"]):
        return ""
    row = summary[name]
    gain = (row["mean"] - summary[local]["mean"]) * (1 if row["higher_is_better"] else -1)
    change = f"{number(abs(gain))} {'better' if gain > 0 else 'worse'}" if gain else "equal"
    worse = percent(row["share_worse_than_local"])
    return f"; against {local}, {name} is {change} in the mean and leaves {worse} of the clients worse off"


def progress(record: RunRecord) -> list[str]:
    """What a run that has not finished still lacks, one sentence each; empty for a finished run."""
    started = {(trial.method, trial.seed): trial for trial in record.trials}
    methods = [str(m.get("name", m.get("kind"))) for m in record.settings.get("methods", [])]
    seeds = record.settings.get("run", {}).get("seeds", [])
    planned = [(method, int(seed)) for method in methods for seed in seeds]
    texts = [f"{method}, seed {seed}: not begun" for method, seed in planned if (method, seed) not in started]
    for (method, seed), trial in started.items():
        if not trial.finished:
            texts.append(f"{method}, seed {seed}: stopped after {_count(len(trial.events('round')), 'round')}")
    return texts
