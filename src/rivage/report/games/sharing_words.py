"""What a run of fair sharing says in sentences: who is fairest, who has least, what it costs, what was promised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivage.core.records import RunRecord
from rivage.report.games.sharing_numbers import summarize_sharing
from rivage.report.tables import number, with_spread

__all__ = ["sharing_answer", "sharing_compared", "sharing_progress"]

Row = Mapping[str, Any]

_ROUNDING = 1e-6  # of the largest sum, which is found to this


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def sharing_compared(record: RunRecord) -> str:
    """What was compared: ``"3 policies that share gpus.csv among 3 agents, 1,344 slots, 1 seed"``."""
    if not record.trials:
        return "No policy has begun."
    scene, policies = record.trials[0].start["scene"], len(record.methods)
    return (
        f"{policies} {'policy that shares' if policies == 1 else 'policies that share'} {scene['name']} among "
        f"{_count(len(scene['agents']), 'agent')}, {_count(scene['slots'], 'slot')}, "
        f"{_count(len(record.seeds), 'seed')}"
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
        f"Over {_count(start['scene']['slots'], 'slot')} {best} is fairest (α = {start['judge']:g}), welfare "
        f"{with_spread(row['welfare'], row['welfare_std'] or None)}{_tied(rivals, best)}, {_beside(row)}. "
        f"{row['worst_agent']} has least, {number(row['least_utility'])}. {_price(row)} {_promised(rivals, best)}"
    )


def _tied(rivals: Mapping[str, Row], best: str) -> str:
    """Others that the spread over the seeds cannot tell from the best."""
    row, near = rivals[best], []
    for name, other in rivals.items():
        spread = max(row["welfare_std"] or 0.0, other["welfare_std"] or 0.0)
        if name != best and row["welfare"] - other["welfare"] <= spread:
            near.append(name)
    return f" ({', '.join(near)} within one standard deviation)" if near else ""


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


def sharing_progress(record: RunRecord) -> list[str]:
    """What a run that has not finished still lacks, one sentence each; empty for a finished run."""
    names = [str(each.get("name", each.get("kind"))) for each in record.settings.get("policies", [])]
    begun = {(str(trial.start["policy"]), trial.seed) for trial in record.trials}
    seeds = record.settings.get("run", {}).get("seeds", [])
    texts = [f"{name}, seed {seed}: not begun" for name in names for seed in seeds if (name, seed) not in begun]
    for trial in record.trials:
        if not trial.finished:
            points = trial.events("point")
            done = _count(points[-1]["slots"] if points else 0, "slot")
            texts.append(f"{trial.method}, seed {trial.seed}: stopped after {done}")
    return texts
