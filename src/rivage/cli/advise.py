"""The verb ``advise``: which method for these sites."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivage.cli.folders import require_folder
from rivage.cli.games import Settings
from rivage.cli.output import (
    DEFAULTS,
    VIOLATION,
    Options,
    certificate_rows,
    logs,
    number,
    show,
    stderr,
    table,
    verdicts,
)
from rivage.core.errors import require_extra

if TYPE_CHECKING:
    from rivage.studies.advice import Advice

__all__ = ["advise"]

_COLUMNS = ("method", "metric", "client mean", "bottom decile", "worse than Local", "MB up", "MB down", "recommended")


def advise(
    data: str,
    /,
    *,
    target: str | None = None,
    minutes: float = 5.0,
    rounds: int | None = None,
    study: Path = Path("advice.toml"),
    settings: Settings = (),
    out: Path | None = None,
    fresh: bool = False,
    strict: bool = False,
    options: Options = DEFAULTS,
) -> int:
    """Say which method is best for your sites, and how sure that is.

    Args:
        data: Folder of tables, one file per site; .npz file with x, y and client; TOML file of a study; or a kind of
            data such as digits.
        target: Column to predict, for tables.
        minutes: What the comparison may take on this machine, by estimate.
        rounds: Rounds of every trial, whatever time that takes; in place of a limit of time.
        study: File to write: the study to run next.
        settings: KEY=VALUE replaces a setting, e.g. task.model=mlp or data.target_type=real. May be repeated.
        out: Folder that gets the folders of the runs.
        fresh: Start again instead of resuming.
        strict: Exit with 3 when a certificate does not hold.
        options: of every verb.
    """
    from rivage.cli.progress import Interruptible, progress

    require_folder(out)
    require_extra("torch", extra="train", purpose="Training")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as for `rivage train`
    from rivage.studies.advice import advise as compare

    console = stderr()
    with (
        logs(options, console),
        progress(console, quiet=options.quiet) as watcher,
        Interruptible(watcher, lambda text: console.print(text, highlight=False)) as observer,
    ):
        found = compare(
            data,
            target=target,
            minutes=minutes,
            rounds=rounds,
            study=study,
            overrides=settings,
            seed=options.seed,
            out=out,
            fresh=fresh,
            observer=observer,
        )
    return _show(found, options, strict)


def _show(found: Advice, options: Options, strict: bool) -> int:
    result = found.as_dict()
    certificates = result["certificates"]
    told = [each for each in certificates if each["check"] in ("advised", "nothing_beats")]
    show(
        options,
        result,
        f"{found.record.folder}: {found.decision.method}; {verdicts(certificates)}",
        table(
            _COLUMNS,
            [(name, *_cells(values, name == found.decision.method)) for name, values in result["methods"].items()],
        ),
        certificate_rows(told),
        then=f"{found.answer}\nnext: rivage run {found.study}",
    )
    return VIOLATION if strict and any(each["verdict"] == "fails" for each in certificates) else 0


def _cells(values: Mapping[str, Any], recommended: bool) -> tuple[str, ...]:
    share = values["share_worse_than_local"]
    return (
        values["metric"],
        number(values["unweighted_mean"]),
        number(values["bottom_decile"]),
        "–" if share is None else f"{share:.0%}",
        number(values["bytes_up"] / 1e6, 3),
        number(values["bytes_down"] / 1e6, 3),
        "yes" if recommended else "",
    )
