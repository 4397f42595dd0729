"""The verbs. Each gathers its arguments, lets a study or a record do the work, and shows the answer.

Whatever is heavy is imported inside the verb that needs it, so that help needs none of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from rivage.cli.audit import audit_trained
from rivage.cli.folders import draw, named_settings, open_run, require_folder
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
from rivage.core.errors import ConfigError, nearest, require_extra

if TYPE_CHECKING:
    from rivage.core.records import RunRecord
    from rivage.studies.settings import Study

__all__ = ["cite", "doctor", "report", "reproduce", "run", "train"]

_ENGINES = {"local": True, "ray": False, "flower": False, "torchdist": True}
"""Engines of the contract, and whether this version has them."""

Settings = Annotated[tuple[str, ...], Parameter(name="--set")]


def run(
    study: Path | None = None,
    /,
    *,
    settings: Settings = (),
    out: Path | None = None,
    fresh: bool = False,
    engine: str = "local",
    interface: str | None = None,
    tune: bool = False,
    strict: bool = False,
    options: Options = DEFAULTS,
) -> int:
    """Train, compare and report.

    Args:
        study: TOML file of the study; without it, the built-in one.
        settings: KEY=VALUE replaces a setting, e.g. run.rounds=5 or methods.2.learning_rate=0.1, where 2 is a
            position counted from 1 or the name of the method. May be repeated.
        out: Folder that gets the folder of the run.
        fresh: Start again instead of resuming.
        engine: What trains: local, which simulates, or torchdist, a process for every silo of decentralised methods.
        interface: Network interface that torchdist may use beside loopback; nothing that crosses it is encrypted.
        tune: First try equally many settings of every method on validation records, then play the best of each.
        strict: Exit with 3 when a certificate does not hold.
        options: of every verb.
    """
    for module in ("matplotlib", "jinja2"):
        require_extra(module, extra="report", purpose="Drawing the report")
    record, played = _train(study, settings, out, fresh, engine, interface, tune, options)
    if record is None:
        return 0
    audited = audit_trained(record, played.audit, options)
    page = record.folder / "report.html"
    draw([record], page)
    record.write_summary({**record.summary, "report": str(page)})
    return _show_run(record, options, strict, audited)


def train(
    study: Path,
    /,
    *,
    settings: Settings = (),
    out: Path | None = None,
    fresh: bool = False,
    engine: str = "local",
    interface: str | None = None,
    tune: bool = False,
    strict: bool = False,
    options: Options = DEFAULTS,
) -> int:
    """Train the methods of a study.

    Args:
        study: TOML file of the study; the settings.toml of a run repeats that run.
        settings: KEY=VALUE replaces a setting, e.g. run.rounds=5 or methods.2.learning_rate=0.1, where 2 is a
            position counted from 1 or the name of the method. May be repeated.
        out: Folder that gets the folder of the run.
        fresh: Start again instead of resuming.
        engine: What trains: local, which simulates, or torchdist, a process for every silo of decentralised methods.
        interface: Network interface that torchdist may use beside loopback; nothing that crosses it is encrypted.
        tune: First try equally many settings of every method on validation records, then play the best of each.
        strict: Exit with 3 when a certificate does not hold.
        options: of every verb.
    """
    record, _ = _train(study, settings, out, fresh, engine, interface, tune, options)
    return 0 if record is None else _show_run(record, options, strict)


def _train(
    path: Path | None,
    settings: Sequence[str],
    out: Path | None,
    fresh: bool,
    engine: str,
    interface: str | None,
    tune: bool,
    options: Options,
) -> tuple[RunRecord | None, Study]:
    """The record of the run, None in a process that is another silo than the first; and what was played."""
    from rivage.cli.progress import Interruptible, progress

    _require_engine(engine, interface, tune)
    require_folder(out)
    require_extra("torch", extra="train", purpose="Training")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # "my_nets:Net" is looked for here, as `python -m` does
    overrides = [*settings, *([] if options.seed is None else [f"run.seeds=[{options.seed}]"])]
    study = _study(path, overrides)
    from rivage.studies.pipeline import run_study

    console = stderr()
    with (
        logs(options, console),
        progress(console, quiet=options.quiet) as watcher,
        Interruptible(watcher, lambda text: console.print(text, highlight=False)) as observer,
        named_settings(path),
    ):
        if engine == "torchdist":
            from rivage.studies.real_silos import run_for_real

            return run_for_real(study, out=out, fresh=fresh, observer=observer, interface=interface), study
        if tune:
            from rivage.studies.tuning import run_tuned

            return run_tuned(study, out=out, fresh=fresh, observer=observer), study
        return run_study(study, out=out, fresh=fresh, observer=observer), study


def _require_engine(engine: str, interface: str | None, tune: bool) -> None:
    built = [name for name, exists in _ENGINES.items() if exists]
    works = f"What works: --engine {', '.join(built)}."
    if engine not in _ENGINES:
        close = nearest(engine, _ENGINES)
        raise ConfigError(f'unknown engine "{engine}"', where="--engine", mend=f"{works} {close}".strip())
    if not _ENGINES[engine]:
        raise ConfigError(f'engine "{engine}" is not built yet', where="--engine", mend=works)
    if interface is not None and engine != "torchdist":
        raise ConfigError(f'engine "{engine}" uses no network', where="--interface", mend="Leave it out.")
    if tune and engine != "local":
        mend = "Tune with --engine local; then give the settings.toml of that run to this engine."
        raise ConfigError("tuning simulates", where="--tune", mend=mend)


def _study(path: Path | None, overrides: Sequence[str]) -> Study:
    from rivage.studies.settings import load_study, override_study

    if path is not None:
        return load_study(path, overrides)
    from rivage.studies.pipeline import built_in

    return override_study(built_in(), overrides)


def _show_run(record: RunRecord, options: Options, strict: bool, audited: Mapping[str, Any] | None = None) -> int:
    summary = record.summary
    certificates = summary["certificates"]
    methods = {name: summary["methods"][name] for name in record.methods if name in summary["methods"]}
    page = summary.get("report")
    report = [f"report: {page}"] if page else []
    show(
        options,
        summary,
        f"{record.folder}: {len(methods)} methods; {verdicts(certificates)}",
        table(
            ("method", "metric", "mean", "bottom decile", "worse than Local", "MB up", "MB down", "seconds"),
            [(name, *_method_cells(values)) for name, values in methods.items()],
        ),
        _simulated_table(methods),
        _tuning_table(summary.get("tuning", {}), list(methods)),
        certificate_rows(certificates),
        then="\n".join([*([f"audit of {audited['method']}: {audited['answer']}"] if audited else []), *report]),
    )
    return VIOLATION if strict and any(c["verdict"] == "fails" for c in certificates) else 0


def _simulated_table(methods: Mapping[str, Mapping[str, Any]]) -> list[Sequence[str]]:
    """What rounds took in simulated time, and what devices spent; no row where nothing is simulated."""
    known = {name: values for name, values in methods.items() if values.get("simulated_s") is not None}
    keys = ["simulated_s", *(["energy_j"] if any(row["energy_j"] is not None for row in known.values()) else [])]
    rows = [(name, *(number(values[key]) for key in keys)) for name, values in known.items()]
    return table(("method", "simulated seconds", "simulated joules")[: 1 + len(keys)], rows)


def _tuning_table(tuning: Mapping[str, Any], methods: Sequence[str]) -> list[Sequence[str]]:
    """What was chosen on validation records; no row where nothing was tuned."""
    from rivage.studies.tuning_grid import label

    rows, tuned = [], tuning.get("methods", {})
    for name in (name for name in methods if name in tuned):
        found = tuned[name]
        value = next(trial["value"] for trial in found["trials"] if trial["settings"] == found["chosen"])
        rows.append((name, label(found["chosen"]), str(len(found["trials"])), number(value)))
    return table(("method", "chosen", "tried", f"validation {tuning.get('value', '')}"), rows)


def _method_cells(values: dict[str, Any]) -> tuple[str, ...]:
    share = values["share_worse_than_local"]
    return (
        values["metric"],
        number(values["mean"]),
        number(values["bottom_decile"]),
        "–" if share is None else f"{share:.0%}",
        number(values["bytes_up"] / 1e6, 3),
        number(values["bytes_down"] / 1e6, 3),
        number(values["seconds"], 3),
    )


def report(*runs: Path, out: Path | None = None, options: Options = DEFAULTS) -> int:
    """Draw one self-contained HTML page.

    Args:
        runs: folders of runs, one or several on one page.
        out: HTML file to write; by default report.html in the folder of a single run, or here.
        options: of every verb.
    """
    if not runs:
        raise ConfigError("no run to report on", mend="Give the folder of a run, such as runs/hospitals-3f9c2a17.")
    records = [open_run(folder) for folder in runs]
    page = out or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    draw(records, page)
    show(options, {"report": str(page), "runs": [str(folder) for folder in runs]}, f"report: {page}")
    return 0


def reproduce(
    *claims: str,
    slow: bool = False,
    listed: Annotated[bool, Parameter(name="--list")] = False,
    options: Options = DEFAULTS,
) -> int:
    """Run published claims again.

    Args:
        claims: names; without any, all quick ones.
        slow: Also the slow ones.
        listed: Only list what could be run.
        options: of every verb.
    """
    from rivage.cli.claims import list_claims, run_claims

    if listed:
        show(options, *list_claims(claims))
        return 0
    with logs(options, stderr()):
        result, line, rows = run_claims(claims, slow=slow, quiet=options.quiet)
    show(options, result, line, rows)
    return VIOLATION if any(claim["verdict"] == "fails" for claim in result["claims"].values()) else 0


def cite(run: Path, /, *, options: Options = DEFAULTS) -> int:
    """Print BibTeX of the methods that a run used.

    Args:
        run: folder of a run.
        options: of every verb.
    """
    from rivage.report import bibtex, references

    found = references([open_run(run)])
    result = {"references": [{**reference, "used_by": uses} for reference, uses in found]}
    show(options, result, "\n\n".join(bibtex(reference) for reference, _ in found))
    return 0


def doctor(*, options: Options = DEFAULTS) -> int:
    """Show what this installation can do.

    Args:
        options: of every verb.
    """
    from rivage.cli.doctor import examine, rows

    found = examine()
    show(options, found, f"rivage {found['rivage']}, Python {found['python']}", rows(found))
    return 0
