"""The verbs ``play`` and ``place``, and what they print: the answer, one row per policy or planner, the certificates.

Gaps to what the best fixed decision would have given stand in the table, so that their certificates are left to the
JSON and the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from rivage.cli.folders import draw_if_possible, require_folder
from rivage.cli.output import DEFAULTS, VIOLATION, Options, certificate_rows, logs, show, stderr, table, verdicts
from rivage.core.errors import ConfigError
from rivage.core.games import GameView, view

if TYPE_CHECKING:
    from rivage.core.records import RunRecord
    from rivage.studies.games.study import GameStudy

__all__ = ["Settings", "place", "play", "play_and_show"]

Settings = Annotated[tuple[str, ...], Parameter(name="--set")]


def play(
    study: Path | None = None,
    /,
    *,
    trace: Path | None = None,
    format: str | None = None,
    capacity: tuple[str, ...] = (),
    policies: str | None = None,
    settings: Settings = (),
    out: Path | None = None,
    fresh: bool = False,
    strict: bool = False,
    options: Options = DEFAULTS,
) -> int:
    """Let online policies meet requests: of a cache, a network of caches, tenants that share, models to place.

    Args:
        study: TOML file of the study; without it, give a trace.
        trace: File of requests, instead of a study: text or CSV, Parquet, int32be or oraclegeneral; .gz, .xz, .zst.
        format: Format of the trace, where its name and content do not tell.
        capacity: Items that the cache holds, or a share of the items such as 5%. May be repeated: how much to buy.
            1%, 2%, 5%, 10% and 20% when left out.
        policies: Kinds of policies, joined by commas; ogb,adaptive,lru,s3fifo,static when left out.
        settings: KEY=VALUE replaces a setting, e.g. run.points=50 or policies.ogb.scale=10. May be repeated.
        out: Folder that gets the folder of the run.
        fresh: Start again instead of resuming.
        strict: Exit with 3 when a certificate does not hold.
        options: of every verb.
    """
    require_folder(out)
    overrides = [*settings, *([] if options.seed is None else [f"run.seeds=[{options.seed}]"])]
    game = _game(study, trace, {"--format": format, "--capacity": capacity, "--policies": policies}, overrides)
    return play_and_show(game, out, fresh, strict, options)


def _game(study: Path | None, trace: Path | None, short: Mapping[str, Any], overrides: Sequence[str]) -> GameStudy:
    """The study of a file, or that of the options that stand in for one."""
    from rivage.studies.play_settings import load_play, short_play

    if study is None and trace is None:
        raise ConfigError(
            "there is neither a study nor a trace",
            where="rivage play",
            mend="Give a TOML file, or --trace FILE --capacity 5%.",
        )
    if trace is not None and study is not None:
        raise ConfigError(
            f'there is a study, "{study}", and a trace, "{trace}"',
            where="rivage play",
            mend="Leave one out; the study says where its trace is.",
        )
    if study is not None:
        for name, value in short.items():
            if value:
                raise ConfigError(
                    f"the study says what {name} would say",
                    where=name,
                    mend="Change it there, or for this once with --set cache.capacity=100.",
                )
        return load_play(study, overrides)
    assert trace is not None, "one of the two is there"
    return short_play(trace, short["--format"], short["--capacity"], short["--policies"], overrides)


def place(
    study: Path,
    /,
    *,
    settings: Settings = (),
    out: Path | None = None,
    fresh: bool = False,
    strict: bool = False,
    options: Options = DEFAULTS,
) -> int:
    """Decide which model goes on which node, and how far that is from the best there is.

    Args:
        study: TOML file of the study.
        settings: KEY=VALUE replaces a setting, e.g. delivery.alpha_ms_per_point=2. May be repeated.
        out: Folder that gets the folder of the run.
        fresh: Start again instead of showing what is there.
        strict: Exit with 3 when a certificate does not hold.
        options: of every verb.
    """
    from rivage.studies.games.placement import load_placement

    require_folder(out)
    overrides = [*settings, *([] if options.seed is None else [f"run.seeds=[{options.seed}]"])]
    return play_and_show(load_placement(study, overrides), out, fresh, strict, options)


def play_and_show(game: GameStudy, out: Path | None, fresh: bool, strict: bool, options: Options) -> int:
    """Play a study to its end, draw its page and show its summary; the exit code."""
    from rivage.cli.progress import Interruptible, progress
    from rivage.studies.play import play_study

    console = stderr()
    with (
        logs(options, console),
        progress(console, quiet=options.quiet) as watcher,
        Interruptible(watcher, lambda text: console.print(text, highlight=False)) as observer,
    ):
        record = play_study(game, out=out, fresh=fresh, observer=observer)
    draw_if_possible(record, options)
    return _show(record, options, strict)


def _show(record: RunRecord, options: Options, strict: bool) -> int:
    """Show the summary of a run of policies; the exit code."""
    game, summary = view(record), record.summary
    certificates, page = summary["certificates"], summary["report"]
    several = record.compared
    one = {"policies": "policy"}.get(several, several.removesuffix("s"))
    ordered = {name: summary[several][name] for name in game.policies}  # keys of files are sorted
    summary = {**summary, several: ordered}
    shown = [column for column in game.columns if not column.detail]
    show(
        options,
        summary,
        f"{record.folder}: {len(ordered)} {one if len(ordered) == 1 else several}; {verdicts(certificates)}",
        table(
            (one, *(column.heading for column in shown)),
            _rows(game, [column.key for column in shown]),
        ),
        certificate_rows(c for c in certificates if c["kind"] == "bound" or c["verdict"] != "holds"),
        then="\n".join([summary["answer"], *([f"report: {page}"] if page else [])]),
    )
    return VIOLATION if strict and any(c["verdict"] == "fails" for c in certificates) else 0


def _rows(game: GameView, keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for row in game.rows:
        name = f"{row['policy']} (foresees)" if row["foresees"] else row["policy"]
        yield (name, *(row[key] for key in keys))
