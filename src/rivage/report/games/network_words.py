"""What a run of a network of caches says in sentences: who saves most, how near to the best placement, who promised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivage.core.records import RunRecord
from rivage.report.games.network_numbers import summarize_network
from rivage.report.games.sentences import count, tied
from rivage.report.tables import number, with_spread

__all__ = ["network_answer", "network_compared"]

Row = Mapping[str, Any]


def network_compared(record: RunRecord) -> str:
    """What was compared: ``"3 policies on 20,000 requests for 50 items, geant: 22 nodes, 74 slots, 1 seed"``."""
    if not record.trials:
        return "No policy has begun."
    start = record.trials[0].start
    trace, network = start["trace"], start["network"]
    policies = len(record.methods)
    return (
        f"{policies} {'policy' if policies == 1 else 'policies'} on {count(trace['requests'], 'request')} for "
        f"{count(trace['items'], 'item')}, {network['name']}: {count(network['nodes'], 'node')}, {_slots(record)}, "
        f"{count(len(record.seeds), 'seed')}"
    )


def _slots(record: RunRecord) -> str:
    """How many items fit, in all; seeds may draw capacities of their own."""
    found = sorted({int(trial.start["network"]["slots"]) for trial in record.trials})
    return count(found[0], "slot") if len(found) == 1 else f"{found[0]:,} to {found[-1]:,} slots"


def network_answer(record: RunRecord) -> str:
    """Who saves most, how that compares with fixed placements, and who promised what."""
    summary = summarize_network(record)
    rivals = {name: row for name, row in summary.items() if not row["foresees"] and row["cost_saved"] is not None}
    if not rivals:
        return "No policy has been played: there is no answer to report."
    network = record.trials[0].start["network"]
    best = max(rivals, key=lambda name: rivals[name]["cost_saved"])
    row = rivals[best]
    return (
        f"With {_slots(record)} in {count(network['nodes'], 'node')} {best} is best, share of the cost saved "
        f"{with_spread(row['cost_saved'], row['cost_saved_std'] or None)}{tied(rivals, best, 'cost_saved')}. "
        f"{_beside(row)} {_promised(rivals, best)}"
    )


def _beside(row: Row) -> str:
    """What fixed placements could have saved."""
    above, below = row["relaxed_saved"], row["placed_saved"]
    if above is None and below is None:
        return "What a fixed placement could have saved is not known: there are too many slots and paths."
    if above is None:
        return f"A fixed placement, found by greed in hindsight, would have saved {number(below)}."
    greedy = "" if below is None else f"; one that greed finds in hindsight saves {number(below)}"
    beaten = "It changes what it holds, and does better than that." if row["cost_saved"] > above else ""
    return f"No fixed placement saves more than {number(above)}{greedy}. {beaten}".strip()


def _promised(rivals: Mapping[str, Row], best: str) -> str:
    """The best policy with a guarantee, and what the winner lacks."""
    sworn = {name: row for name, row in rivals.items() if row["regret_bound"] is not None and row["factor"] is not None}
    if not sworn:
        return "No policy here promises anything."
    if best in sworn:
        return f"It promises {_kept(sworn[best])}."
    name = max(sworn, key=lambda name: sworn[name]["cost_saved"])
    other = sworn[name]
    behind = number(rivals[best]["cost_saved"] - other["cost_saved"])
    return (
        f"{best} promises nothing for other requests; of the policies with a guarantee {name} is best, "
        f"{number(other['cost_saved'])}, {behind} less: it promises {_kept(other)}."
    )


def _kept(row: Row) -> str:
    """The promise in shares of the cost; gain and share say what the cost is."""
    less = row["regret_bound"] * row["cost_saved"] / row["gain"] if row["gain"] else None
    promise = f"{number(row['factor'])} of what the best fixed placement saves, less {number(less)}"
    if row["relaxed_saved"] is None or less is None:
        return f"{promise}; how much that is, nobody knows"
    most = row["factor"] * row["relaxed_saved"] - less
    if most <= 0:
        return f"{promise}: here that is nothing"
    return f"{promise}: here that is at most {number(most)}{', and kept' if row['cost_saved'] >= most else ''}"
