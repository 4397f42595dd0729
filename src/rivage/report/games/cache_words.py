"""What a run of one cache says in sentences: who won, by how much, and what was promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rivage.core.records import RunRecord
from rivage.report.games.cache_numbers import capacities, summarize_policies
from rivage.report.games.sentences import count, names_of, tied, unfinished
from rivage.report.tables import number, with_spread

__all__ = ["game_answer", "game_compared", "game_progress"]

Row = Mapping[str, Any]


def game_compared(record: RunRecord) -> str:
    """What was compared: ``"5 policies on 95,607 requests for 13,756 items, 1 capacity, 3 seeds"``."""
    if not record.trials:
        return "No policy has begun."
    trace = record.trials[0].start["trace"]
    policies = len({trial.start["policy"] for trial in record.trials})
    sizes = len(capacities(record))
    return (
        f"{policies} {'policy' if policies == 1 else 'policies'} on {count(trace['requests'], 'request')} for "
        f"{count(trace['items'], 'item')}, {sizes} {'capacity' if sizes == 1 else 'capacities'}, "
        f"{count(len(record.seeds), 'seed')}"
    )


def game_answer(record: RunRecord) -> str:
    """Who saves most at the first capacity, how that compares with the best fixed set, and who promised what."""
    summary = summarize_policies(record)
    rivals = {name: row for name, row in summary.items() if not row["foresees"] and row["cost_saved"] is not None}
    if not rivals:
        return "No policy without foresight has been played: there is no answer to report."
    trace = record.trials[0].start["trace"]
    what = "share of the cost saved" if trace["weighted"] else "hit ratio"
    best = max(rivals, key=lambda name: rivals[name]["cost_saved"])
    row = rivals[best]
    text = (
        f"With {row['capacity']:,} of {trace['items']:,} items {best} is best, {what} "
        f"{with_spread(row['cost_saved'], row['cost_saved_std'] or None)}{tied(rivals, best, 'cost_saved')}, "
        f"{_beside(row)}"
    )
    return f"{text}. {_promised(rivals, best)}{_more(rivals)}"


def _beside(row: Row) -> str:
    gap = row["cost_saved"] - row["static_saved"]
    if not gap:
        return "as much as the best fixed set in hindsight"
    return f"{number(abs(gap))} {'above' if gap > 0 else 'below'} the best fixed set in hindsight"


def _promised(rivals: Mapping[str, Row], best: str) -> str:
    """The best policy with a guarantee, and what the winner lacks."""
    sworn = {name: row for name, row in rivals.items() if row["regret_bound"] is not None}
    row = rivals[best]
    beaten = row["cost_saved"] > row["static_saved"]
    lately = " Following what was asked for lately pays off here; no fixed set can do that." if beaten else ""
    if not sworn:
        return f"No policy here promises anything.{lately}"
    if best in sworn:
        kept = "keeps its promise:" if row["regret"] <= row["regret_bound"] else "has"
        return f"It {kept} {_kept(row)}.{lately}"
    name = max(sworn, key=lambda name: sworn[name]["cost_saved"])
    other = sworn[name]
    behind = row["cost_saved"] - other["cost_saved"]
    return (
        f"{best} promises nothing for other requests; of the policies with a guarantee {name} is best, "
        f"{number(other['cost_saved'])}, {number(behind)} less: {_kept(other)}.{lately}"
    )


def _kept(row: Row) -> str:
    regret, bound = row["regret"], row["regret_bound"]
    size = f"{regret:,.0f}".replace("-", "−")
    return f"regret {size}, {'at most' if regret <= bound else 'MORE than the'} {bound:,.0f} promised"


def _more(rivals: Mapping[str, Row]) -> str:
    """What the largest capacity brings beside the smallest."""
    best: dict[int, float] = {}
    for row in rivals.values():
        for each in row["capacities"]:
            if each["cost_saved"] is not None:
                best[each["capacity"]] = max(each["cost_saved"], best.get(each["capacity"], 0.0))
    if len(best) < 2:
        return ""
    low, high = min(best), max(best)
    return f" From {low:,} to {high:,} items the best policy goes from {number(best[low])} to {number(best[high])}."


def game_progress(record: RunRecord) -> list[str]:
    """What a run that has not finished still lacks, one sentence each; empty for a finished run."""
    begun = Counter((str(trial.start["policy"]), trial.seed) for trial in record.trials)
    places = max((int(trial.start.get("places", 1)) for trial in record.trials), default=1)
    partly = [
        f"{name}, seed {seed}: {places - begun[name, seed]} of {places} capacities not begun"
        for name, seed in names_of(record)
        if 0 < begun[name, seed] < places
    ]
    return [*partly, *unfinished(record, "request")]
