"""The verb ``design``: overlays for the silos of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rivage.cli.folders import require_folder
from rivage.cli.games import Settings, play_and_show
from rivage.cli.output import DEFAULTS, Options, logs, number, show, stderr, table
from rivage.core.errors import ConfigError

if TYPE_CHECKING:
    from rivage.studies.games.design import DesignStudy
    from rivage.studies.measuring.results import Measured

__all__ = ["design"]


def design(
    network: Path | None = None,
    /,
    *,
    model_bits: float | None = None,
    compute_ms: float | None = None,
    access_gbps: float | None = None,
    core_gbps: float | None = None,
    local_steps: int | None = None,
    bandwidth: Path | None = None,
    latency: Literal["round-trip", "one-way"] | None = None,
    measure: Path | None = None,
    settings: Settings = (),
    out: Path | None = None,
    fresh: bool = False,
    strict: bool = False,
    options: Options = DEFAULTS,
) -> int:
    """Design the overlay over which silos train fastest.

    Args:
        network: Network of the sites: TOML, GML or GraphML, or a CSV matrix of latencies in ms; or the TOML file of a
            study, such as the settings.toml of a run. The options then replace what it says.
        model_bits: Size of what a silo sends to another in a round, in bits.
        compute_ms: Time of a local step, in ms; 0 when left out.
        access_gbps: Rate of every silo's access link in Gbit/s; what the network says when left out, else no limit.
        core_gbps: Capacity of every core link in Gbit/s, in place of its own.
        local_steps: Local steps in a round; 1 when left out.
        bandwidth: CSV matrix of bandwidths in bit/s, beside one of latencies.
        latency: What a matrix of latencies holds; round trips, as ping shows them, when left out.
        measure: File of machines whose latencies, bandwidths and access rates are measured, in place of a network. With
            --model-bits the overlay is designed at once.
        settings: KEY=VALUE replaces a setting, e.g. silos.step_ms=30 or overlays.best.steps=100000. May be repeated.
        out: Folder that gets the folder of the run.
        fresh: Start again instead of showing what is there.
        strict: Exit with 3 when a certificate does not hold.
        options: of every verb.
    """
    require_folder(out)
    if (network is None) == (measure is None):
        mend = "Give the file of a network, or --measure with a file of machines."
        raise ConfigError("give one network", where="rivage design", mend=mend)
    overrides = [*settings, *([] if options.seed is None else [f"run.seeds=[{options.seed}]"])]
    silos = {
        "model_bits": model_bits,
        "step_ms": compute_ms,
        "local_steps": local_steps,
        "access_bps": None if access_gbps is None else access_gbps * 1e9,
        "core_bps": None if core_gbps is None else core_gbps * 1e9,
    }
    told = {name: value for name, value in silos.items() if value is not None}
    matrices = {"bandwidth": bandwidth, "measured": latency}
    if measure is not None:
        measured = _measured(measure, fresh, options)
        if model_bits is None:
            return _show_measured(measured, options)
        network = measured.study
    assert network is not None, "one of the two is there"
    return play_and_show(_study(network, told, matrices, overrides), out, fresh, strict, options)


def _study(
    network: Path, silos: Mapping[str, Any], matrices: Mapping[str, Any], overrides: Sequence[str]
) -> DesignStudy:
    """The study of a file, or that of a network and the options."""
    from rivage.core.toml import load_toml
    from rivage.studies.games.design import make_design

    if network.is_dir():
        raise ConfigError("is a folder", where=str(network), mend="Give the file of a network, or of a study.")
    table = load_toml(network) if network.suffix.lower() == ".toml" else {}
    if "underlay" not in table:
        mapping = {"name": network.stem or "design", "silos": silos, "underlay": _underlay(network, matrices)}
        return make_design(mapping, "", overrides)
    if any(value is not None for value in matrices.values()):
        mend = "Leave --bandwidth and --latency out: its [underlay] says it."
        raise ConfigError("is a study", where=str(network), mend=mend)
    own = table.get("silos", {})
    mapping = {"name": network.stem, **table, "silos": {**own, **silos} if isinstance(own, dict) else own}
    return make_design(mapping, str(network), overrides)


def _underlay(network: Path, matrices: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a network file, or of matrices."""
    if network.suffix.lower() != ".csv":
        given = [name for name, value in matrices.items() if value is not None]
        if given:
            options = " and ".join({"bandwidth": "--bandwidth", "measured": "--latency"}[name] for name in given)
            mend = f"Leave {options} out: they go with a CSV matrix of latencies."
            raise ConfigError("is no CSV matrix", where=str(network), mend=mend)
        return {"kind": "file", "path": network.as_posix()}
    if matrices["bandwidth"] is None:
        raise ConfigError("bandwidths are not known", where=str(network), mend="Give their matrix with --bandwidth.")
    measured = "latency_ms" if matrices["measured"] == "one-way" else "round_trip_ms"
    bandwidth = matrices["bandwidth"].as_posix()
    return {"kind": "matrices", "latency": network.as_posix(), "bandwidth": bandwidth, "measured": measured}


def _measured(machines: Path, fresh: bool, options: Options) -> Measured:
    """Measure what is missing between the machines of a file, beside that file."""
    from rivage.cli.progress import Interruptible, progress
    from rivage.studies.measuring.hosts import load_hosts
    from rivage.studies.measuring.pairs import measure

    hosts, console = load_hosts(machines), stderr()
    folder = machines.with_suffix("").with_name(f"{machines.stem}-measured")
    with (
        logs(options, console),
        progress(console, quiet=options.quiet) as watcher,
        Interruptible(watcher, lambda text: console.print(text, highlight=False)) as observer,
    ):
        return measure(hosts, folder, observer, fresh=fresh)


def _show_measured(measured: Measured, options: Options) -> int:
    files = {"latency": measured.latency, "bandwidth": measured.bandwidth, "study": measured.study}
    facts = {
        "access_up_bps": measured.access_up_bps,
        "access_down_bps": measured.access_down_bps,
        "step_ms": measured.step_ms,
    }
    show(
        options,
        {"names": measured.names, **{name: str(path) for name, path in files.items()}, **facts},
        f"{measured.study.parent}: {len(measured.names)} machines",
        table(
            ("machine", "up, Mbit/s", "down, Mbit/s", "step, ms"),
            [
                (
                    name,
                    *(
                        number(known)
                        for known in (
                            _mega(measured.access_up_bps.get(name)),
                            _mega(measured.access_down_bps.get(name)),
                            measured.step_ms.get(name),
                        )
                    ),
                )
                for name in measured.names
            ],
        ),
        then=f"Design with: rivage design {measured.study} --model-bits BITS",
    )
    return 0


def _mega(bps: float | None) -> float | None:
    return None if bps is None else bps / 1e6
