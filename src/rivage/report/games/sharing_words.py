"""What a run of fair sharing says in sentences: who is fairest, who has least, what it costs, what was promised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivage.core.records import RunRecord
from rivage.report.games.sentences import count, tied
from rivage.report.games.sharing_numbers import summarize_sharing
from rivage.report.tables import number, with_spread

__all__ = ["sharing_answer", "sharing_compared"]

Row = Mapping[str, Any]

_ROUNDING = 1e-6  # of the largest sum, which is found to this


def sharing_compared(record: RunRecord) -> str:
    """What was compared: ``"3 policies that share gpus.csv among 3 agents, 1,344 slots, 1 seed"``."""
    if not record.trials:
        return "No policy has begun."
    scene, policies = record.trials[0].start["scene"], len(record.methods)
    return (
        f"{policies} {'policy that shares' if policies == 1 else 'policies that share'} {scene['name']} among "
        f"{count(len(scene['agents']), 'agent')}, {count(scene['slots'], 'slot')}, "
        f"{count(len(record.seeds), 'seed')}"
    )


def sharing_answer(record: RunRecord) -> str:
    """Who is fairest over the horizon, how that compares with fixed shares, what it costs, and who promised what."""
    summary = summarize_sharing(record)
    rivals = {name: row for name, row in summary.items() if not row["foresees"] and row["welfare"] is not None}
    if not rivals:
        return "No policy without foresight has a finite welfare: there is no answer to report."
    start = record.trials[0].start
    best = max(rivals, key=lambda name: rivals[name]["welfare"])
    row = rivals[best]
    return (
        f"Over {count(start['scene']['slots'], 'slot')} {best} is fairest (α = {start['judge']:g}), welfare "
        f"{with_spread(row['welfare'], row['welfare_std'] or None)}{tied(rivals, best, 'welfare')}, {_beside(row)}. "
        f"{row['worst_agent']} has least, {number(row['least_utility'])}. {_price(row)} {_promised(rivals, best)}"
    )


def _beside(row: Row) -> str:
    regret = row["regret"]
    if not regret:
        return "as much as the fairest shares that never change"
    side = "below" if regret > 0 else "above"
    return f"{number(abs(regret))} {side} the fairest shares that never change"


def _price(row: Row) -> str:
    price = row["price_of_fairness"]
    if abs(price) < _ROUNDING:
        return "The sum of utilities is the largest of fixed shares."
    if price < 0:
        return f"The sum of utilities is {100 * -price:.2g} % above what any fixed shares give."
    return f"The sum of utilities is {100 * price:.2g} % below the largest of fixed shares."


def _promised(rivals: Mapping[str, Row], best: str) -> str:
    """The best policy with a guarantee, and what the winner lacks."""
    sworn = {name: row for name, row in rivals.items() if row["regret_bound"] is not None}
    if not sworn:
        return "No policy here promises anything."
    if best in sworn:
        return f"It promises {_kept(sworn[best])}."
    name = max(sworn, key=lambda name: sworn[name]["welfare"])
    behind = number(rivals[best]["welfare"] - sworn[name]["welfare"])
    return (
        f"{best} promises nothing for other demands; of the policies with a guarantee {name} is best, {behind} less: "
        f"it promises {_kept(sworn[name])}."
    )


def _kept(row: Row) -> str:
    regret, bound = row["regret"], row["regret_bound"]
    return f"a regret of at most {number(bound)} here, {'and has' if regret <= bound else 'but has'} {number(regret)}"
