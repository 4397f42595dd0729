"""Published claims on the command line: which there are, and what came out when they were run again."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rivage.cli.output import table
from rivage.core.errors import ConfigError, RivageError, nearest

__all__ = ["list_claims", "run_claims"]

Rows = list[Sequence[str]]


def _claims() -> Mapping[str, Any]:
    from rivage.studies.claims import CLAIMS

    return CLAIMS


def _chosen(names: Sequence[str]) -> dict[str, Any]:
    """The named claims, or all.

    Raises:
        ConfigError: listing every unknown name.
    """
    claims = _claims()
    unknown = [name for name in names if name not in claims]
    if unknown:
        mends = [nearest(name, claims) for name in unknown]
        raise ConfigError(
            f"unknown claim {', '.join(map(_quote, unknown))}",
            mend=" ".join(filter(None, mends)) or "List them with: rivage reproduce --list",
        )
    return {name: claims[name] for name in names} if names else dict(claims)


def _quote(name: str) -> str:
    return f'"{name}"'


def list_claims(names: Sequence[str]) -> tuple[dict[str, Any], str, Rows]:
    """The JSON object, the line and the table of what could be run."""
    chosen = _chosen(names)
    result = {
        name: {
            "paper": claim.paper,
            "where": claim.where,
            "statement": claim.statement,
            "expected": claim.expected,
            "tolerance": claim.tolerance,
            "cost": claim.cost,
        }
        for name, claim in chosen.items()
    }
    rows = [(name, claim.cost, claim.paper, claim.where, claim.statement) for name, claim in chosen.items()]
    return (
        {"claims": result},
        f"{len(chosen)} claims",
        table(("claim", "cost", "paper", "where", "statement"), rows),
    )


def run_claims(names: Sequence[str], *, slow: bool, quiet: bool) -> tuple[dict[str, Any], str, Rows]:
    """Run claims one after another and gather the verdicts ``holds``, ``fails`` or ``not tested``.

    Args:
        names: which claims; a slow one that is named is run. Empty means all, the slow ones only with ``slow``.
        slow: run slow ones too.
        quiet: do not say which one is running.

    Returns:
        The JSON object, the line and the table.
    """
    result = {}
    for name, claim in _chosen(names).items():
        if claim.cost == "slow" and not (slow or name in names):
            result[name] = _entry(claim, None, "not tested", "slow; add --slow", 0.0)
            continue
        if not quiet:
            print(f"{name}: {claim.statement}", file=sys.stderr)
        started = time.perf_counter()
        try:
            outcome = claim.run()
            found = outcome.measured, outcome.verdict, outcome.detail
        except RivageError as error:  # data or an extra that is not here is no verdict on the claim
            found = None, "not tested", str(error)
        result[name] = _entry(claim, *found, time.perf_counter() - started)
    counts = [f"{sum(c['verdict'] == v for c in result.values())} {v}" for v in ("holds", "fails", "not tested")]
    rows = [
        (c["verdict"], name, _text(c["measured"]), _text(c["expected"]), c["paper"], c["where"], c["detail"])
        for name, c in result.items()
    ]
    header = ("verdict", "claim", "measured", "expected", "paper", "where", "detail")
    return {"claims": result}, f"{len(result)} claims: {', '.join(counts)}", table(header, rows)


def _entry(claim: Any, measured: Any, verdict: str, detail: str, seconds: float) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "measured": measured,
        "expected": claim.expected,
        "tolerance": claim.tolerance,
        "paper": claim.paper,
        "where": claim.where,
        "statement": claim.statement,
        "cost": claim.cost,
        "detail": detail,
        "seconds": seconds,
    }


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
