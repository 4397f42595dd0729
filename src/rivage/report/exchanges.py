"""What happened to updates between clients and server, in sentences: stages, collector, adversary, refused rounds.

All functions read rows of `rivage.core.summaries.summarize`, for the page and for the terminal alike. Kinds that are
not known here, such as those of plug-ins, are named with their settings.

Example:
    >>> top = {"kind": "top_k", "share": 0.1, "feedback": True}
    >>> exchange({"stages": [{"kind": "clip", "norm": 1.0}, top], "collector": {"kind": "krum", "faulty": 1}})
    'updates clipped to norm 1, sparsified to top-k 10 % with error feedback; combined by Krum (faulty 1)'
    >>> adversary({"kind": "sign_flip", "clients": [2], "scale": 5.0})
    'Client 2 flips the sign of its update, scale 5.'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["adversary", "exchange", "exchanges", "harm", "notices", "privacy"]

Settings = Mapping[str, Any]
Summary = Mapping[str, Mapping[str, Any]]
_RULES = {
    "krum": "Krum",
    "median": "coordinate-wise median",
    "norm_bounded": "mean of norm-bounded updates",
    "trimmed_mean": "trimmed mean",
}
_NAMED = 8  # malicious clients up to this number are named


def exchange(row: Settings) -> str:
    """What the stages and the collector of a method did; empty for the plain mean of plain updates.

    Args:
        row: with ``stages`` and ``collector`` as the record has them, where it has them, and what noise promises.
    """
    stages, collector = row.get("stages") or (), row.get("collector")
    parts = [f"updates {', '.join(map(_stage, stages))}"] if stages else []
    parts += [f"combined by {_rule(collector)}"] if collector else []
    return "; ".join([*parts, *([privacy(row)] if row.get("epsilon") is not None else [])])


def privacy(row: Settings) -> str:
    """What a method with noise may tell, in words.

    Args:
        row: with ``epsilon`` and ``privacy``.
    """
    told = row["privacy"]
    one = "client" if told["unit"] == "user" else str(told["unit"])
    return f"of any one {one} at most epsilon {row['epsilon']:.3g} at delta {told['delta']:g} ({told['relation']})"


def exchanges(summary: Summary) -> dict[str, str]:
    """Method -> `exchange`, for those where there is something to say."""
    texts = {method: exchange(row) for method, row in summary.items()}
    return {method: text for method, text in texts.items() if text}


def _stage(stage: Settings) -> str:
    kind = str(stage["kind"])
    match kind:
        case "clip":
            return f"clipped to norm {_plain(stage['norm'])}"
        case "top_k":
            kept = f"{stage['count']} numbers" if stage.get("share") is None else _percent(stage["share"])
            return f"sparsified to top-k {kept} {'with' if stage.get('feedback') else 'without'} error feedback"
        case "float16" | "bfloat16":
            return f"rounded to {kind}"
        case "gaussian_noise":
            return f"given noise of deviation {_plain(stage['deviation'])} per coordinate"
    return f"passed through {kind}{_details(stage)}"


def _rule(collector: Settings) -> str:
    kind = str(collector["kind"])
    if kind == "norm_bounded" and collector.get("norm") is None:
        return f"{_RULES[kind]} (norm: the median distance)"
    if kind == "private_mean":
        clip = "an adaptive norm" if collector["adaptive"] else f"norm {_plain(collector['clip'])}"
        return f"a mean of updates clipped to {clip}, with noise of multiplier {_plain(collector['noise'])}"
    if kind == "dp_ftrl":
        clipped, noise = _plain(collector["clip"]), _plain(collector["noise"])
        return f"a mean of updates clipped to norm {clipped}, with noise of multiplier {noise} on prefix sums"
    if kind == "secagg":
        return f"secure aggregation of at least {collector['survivors']} updates{_noise(collector)}"
    return f"{_RULES.get(kind, kind)}{_details(collector)}"


def _noise(collector: Settings) -> str:
    """Of clients that add some under their masks; a study file says "off" where there is none."""
    multiplier = collector.get("noise_multiplier")
    if not isinstance(multiplier, float):
        return ""
    return f", each clipped to norm {_plain(collector['clip'])}, with noise of multiplier {_plain(multiplier)}"


def adversary(settings: Settings) -> str:
    """Who does harm, and how, as one sentence."""
    who, several = _malicious(settings)
    return f"{who} {_harms(settings, several=several)}."


def harm(summary: Summary) -> str:
    """The `adversary` of a run, which all its methods share; empty without."""
    return next((adversary(row["adversary"]) for row in summary.values() if row.get("adversary")), "")


def _malicious(settings: Settings) -> tuple[str, bool]:
    """The subject of the sentence, and whether it is plural."""
    clients = settings.get("clients")
    if clients is None:
        return f"About {_percent(settings['share'])} of the clients, drawn for each seed,", True
    if len(clients) > _NAMED:
        return f"{len(clients)} clients", True
    if not clients:
        return "No client", False
    *most, last = (f'"{client}"' if isinstance(client, str) else str(client) for client in clients)
    return (f"Clients {', '.join(most)} and {last}", True) if most else (f"Client {last}", False)


def _harms(settings: Settings, *, several: bool) -> str:
    own = "their update" if several else "its update"
    verb = "" if several else "s"
    match str(settings["kind"]):
        case "sign_flip":
            return f"flip{verb} the sign of {own}, scale {_plain(settings['scale'])}"
        case "huge":
            return f"add{verb} normal noise of scale {_plain(settings['scale'])} to {own}"
        case "nan":
            return f"send{verb} NaN instead of {own}"
        case kind:
            rest = {key: value for key, value in settings.items() if key not in ("share", "clients")}
            return f"corrupt{verb} {own} as {kind} does{_details(rest)}"


def notices(summary: Summary) -> list[str]:
    """What went otherwise than a reader of the results would expect, one line per method and matter."""
    return [line for method, row in summary.items() for line in (_refused(method, row), _forgot(method, row)) if line]


def _refused(method: str, row: Settings) -> str:
    count = row.get("refused")
    if not count:
        return ""
    reasons: Mapping[str, int] = row["refusals"]
    why = min(reasons, key=lambda reason: (-reasons[reason], reason))
    often = ": " if len(reasons) == 1 else ", most often: "
    return f"{method}: {count} of {row['played']} rounds {'was' if count == 1 else 'were'} not aggregated{often}{why}"


def _forgot(method: str, row: Settings) -> str:
    count = row.get("forgotten")
    if not count:
        return ""
    what, then = "client memories were", "those clients start anew"
    if count == 1:
        what, then = "client memory was", "that client starts anew"
    return f"{method}: {count} {what} dropped because of run.remembered; {then}"


def _details(settings: Settings) -> str:
    """`` (faulty 1, keep 3)``; nothing without settings."""
    parts = [f"{key} {_plain(value)}" for key, value in settings.items() if key != "kind" and value is not None]
    return f" ({', '.join(parts)})" if parts else ""


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
