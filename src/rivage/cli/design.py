"""The verb ``design``: overlays for the silos of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rivage.cli.folders import require_folder
from rivage.cli.games import Settings, play_and_show
from rivage.cli.output import DEFAULTS, Options
from rivage.core.errors import ConfigError

if TYPE_CHECKING:
    from rivage.studies.games.design import DesignStudy

__all__ = ["design"]


def design(
    network: Path,
    /,
    *,
    model_bits: float | None = None,
    compute_ms: float | None = None,
    access_gbps: float | None = None,
    core_gbps: float | None = None,
    local_steps: int | None = None,
    bandwidth: Path | None = None,
    latency: Literal["round-trip", "one-way"] | None = None,
    settings: Settings = (),
    out: Path | None = None,
    fresh: bool = False,
    strict: bool = False,
    options: Options = DEFAULTS,
) -> int:
    """Design the overlay over which silos train fastest.

    Args:
        network: Network of the sites: TOML, GML or GraphML, or a CSV matrix of latencies in ms; or the TOML file of a
            study, such as the settings.toml of a run.
        model_bits: Size of what a silo sends to another in a round, in bits.
        compute_ms: Time of a local step, in ms; 0 when left out.
        access_gbps: Rate of every silo's access link in Gbit/s; what the network says when left out, else no limit.
        core_gbps: Capacity of every core link in Gbit/s, in place of its own.
        local_steps: Local steps in a round; 1 when left out.
        bandwidth: CSV matrix of bandwidths in bit/s, beside one of latencies.
        latency: What a matrix of latencies holds; round trips, as ping shows them, when left out.
        settings: KEY=VALUE replaces a setting, e.g. silos.step_ms=30 or overlays.best.steps=100000. May be repeated.
        out: Folder that gets the folder of the run.
        fresh: Start again instead of showing what is there.
        strict: Exit with 3 when a certificate does not hold.
        options: of every verb.
    """
    require_folder(out)
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
    return play_and_show(_study(network, told, matrices, overrides), out, fresh, strict, options)


def _study(
    network: Path, silos: Mapping[str, Any], matrices: Mapping[str, Any], overrides: Sequence[str]
) -> DesignStudy:
    """The study of a file, or that of a network and the options."""
    from rivage.core.toml import load_toml
    from rivage.studies.games.design import load_design, make_design

    if network.suffix.lower() == ".toml" and {"silos", "overlays", "underlay"} & set(load_toml(network)):
        if silos or any(value is not None for value in matrices.values()):
            mend = "Change it there, or for this once with --set silos.step_ms=30."
            raise ConfigError("the study says what the options would say", where=str(network), mend=mend)
        return load_design(network, overrides)
    mapping = {"name": network.stem or "design", "silos": silos, "underlay": _underlay(network, matrices)}
    return make_design(mapping, "", overrides)


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
