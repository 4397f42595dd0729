"""Certificates of a run of overlays, computed from its record alone: delays, circuits and multipliers are in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.certificates import Certificate
from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.core.trials import finished_trials
from rivage.decentralized.lower_bounds import CircuitProof
from rivage.decentralized.overlays import Overlay
from rivage.decentralized.silos import Silos
from rivage.graphs.path_rules import Connectivity

__all__ = ["cycle_time", "cycle_time_bound", "overlay_gap", "recorded_silos"]

_ROUNDING = 1e-9  # relative: delays are added up in another order


def recorded_silos(record: RunRecord) -> Silos:
    """The silos of a run of ``rivage design``."""
    (trial, *_) = finished_trials(record, "lower_bound")
    scene, network = trial.start["scene"], trial.events("network")[0]
    return Silos(
        connectivity=Connectivity(
            names=tuple(scene["names"]),
            latency_ms=np.array(network["latency_ms"], np.float64),
            available_bps=_limits(network["available_bps"]),
            name=scene["network"],
        ),
        model_bits=scene["model_bits"],
        step_ms=np.array(scene["step_ms"], np.float64),
        access_up_bps=_limits(scene["access_up_bps"]),
        access_down_bps=_limits(scene["access_down_bps"]),
        local_steps=scene["local_steps"],
    )


def cycle_time_bound(record: RunRecord) -> Certificate:
    """Is there no faster overlay? Repeats the proof with the multipliers that the record holds."""
    told, proved = _bound(record), _proved_bound(record)
    return Certificate(
        kind="bound",
        claim=f"No overlay of these silos has rounds of less than {told['value_ms']:.5g} ms in the long run.",
        measured=proved,
        reference=told["value_ms"],
        method=f"every overlay has a circuit through {told['silo']}, and multipliers of a linear programme bound the "
        "mean delay of each; rounded down" + ("" if told["complete"] else "; not all silos were looked at"),
        confidence=None,
        verdict="holds" if proved >= told["value_ms"] * (1 - _ROUNDING) else "fails",
        check="cycle_time_bound",
        fields={},
    )


def cycle_time(record: RunRecord, *, method: str) -> Certificate:
    """Is the time of a round what was told? A circuit bounds it from below, potentials from above: no gap."""
    silos, slowest, proved, told = recorded_silos(record), [], [], []
    for trial in finished_trials(record, method):
        event = trial.events("overlay")[0]
        overlay = Overlay.named(silos, [tuple(arc) for arc in event["arcs"]], method)
        low, high = _star(overlay, event) if event["potentials"] is None else _circuits(overlay, event)
        told.append(event["cycle_time_ms"])
        slowest.append(low)
        proved.append(high)
        server = event["potentials"] is None
    agree = np.allclose(slowest, told, rtol=_ROUNDING, atol=0) and np.allclose(proved, told, rtol=_ROUNDING, atol=0)
    return Certificate(
        kind="gap",
        claim=f"Rounds over {method} take {float(np.mean(told)):.5g} ms in the long run.",
        measured=float(np.mean(proved)),
        reference=float(np.mean(slowest)),
        method="delays from latencies, bandwidths and degrees; "
        + (
            "the slowest way to the hub and back"
            if server
            else "the slowest circuit shows that rounds take as long, potentials that no circuit is slower"
        ),
        confidence=None,
        verdict="holds" if agree else "fails",
        check="cycle_time",
        fields={"method": method},
    )


def overlay_gap(record: RunRecord, *, method: str) -> Certificate:
    """How far is an overlay from what none can go below?"""
    times = [trial.events("overlay")[0]["cycle_time_ms"] for trial in finished_trials(record, method)]
    time, bound = float(np.mean(times)), _proved_bound(record)
    above = f"at most {time / bound - 1:.2%} above the optimum" if bound > 0 else "without a bound"
    return Certificate(
        kind="gap",
        claim=f"{method} takes {time:.5g} ms a round, {above}.",
        measured=time,
        reference=bound,
        method="(cycle time − bound) / bound, the bound proved again from the record",
        confidence=None,
        verdict="holds" if min(times) >= bound * (1 - _ROUNDING) else "fails",  # a bound that is no number fails
        check="overlay_gap",
        fields={"method": method},
    )


def _bound(record: RunRecord) -> Mapping[str, Any]:
    (trial, *_) = finished_trials(record, "lower_bound")
    return dict(trial.events("bound")[0])


def _proved_bound(record: RunRecord) -> float:
    """What the multipliers of the record prove; without any, the slowest silo's own work."""
    silos, told = recorded_silos(record), _bound(record)
    if told["proof"] is None:
        return float(silos.work_ms.max())
    proof = _proof(told["proof"], len(silos))
    if silos.names[proof.silo] != told["silo"]:
        raise _broken(f'multipliers are those of "{silos.names[proof.silo]}", the bound is told of "{told["silo"]}"')
    return proof.value(silos.single_delays_ms())


def _proof(plain: Mapping[str, Any], count: int) -> CircuitProof:
    """The multipliers, one for each silo and each cut: fewer would be spread over several and prove what is false."""
    silos = [plain["silo"], *plain["members"], *(silo for members in plain["sets"] for silo in members)]
    sizes = [len(plain[key]) for key in ("potentials", "degrees", "members", "weights")]
    if sizes != [count, count, len(plain["sets"]), len(plain["sets"])] or not set(silos) <= set(range(count)):
        raise _broken(f"multipliers do not fit {count} silos and {len(plain['sets'])} cuts")
    sets = np.zeros((len(plain["sets"]), count), np.bool_)
    for row, members in zip(sets, plain["sets"], strict=True):
        row[members] = True
    return CircuitProof(
        silo=int(plain["silo"]),
        potentials=np.array(plain["potentials"], np.float64),
        degrees=np.array(plain["degrees"], np.float64),
        sets=sets,
        members=np.array(plain["members"], np.int64),
        weights=np.array(plain["weights"], np.float64),
    )


def _circuits(overlay: Overlay, event: Mapping[str, Any]) -> tuple[float, float]:
    """The mean delay of the critical circuit, and what no circuit exceeds by the potentials: max d + π_i − π_j."""
    delays, potentials = overlay.delay_matrix_ms, np.array(event["potentials"], np.float64)
    nodes = _places(overlay.silos, event["critical_circuit"])
    mean = float(delays[nodes, np.roll(nodes, -1)].mean()) if nodes else -np.inf
    return mean, float((delays + potentials[:, None] - potentials).max())


def _star(overlay: Overlay, event: Mapping[str, Any]) -> tuple[float, float]:
    """The slowest way to the hub and back, less the work that the hub's silo does at the same time."""
    (hub,), delays, work = _places(overlay.silos, [event["hub"]]), overlay.delay_matrix_ms, overlay.silos.work_ms
    if not (overlay.arcs == hub).any(axis=1).all():
        raise _broken(f'not all arcs lead to "{event["hub"]}" or from it')
    back = np.delete(delays[hub] + delays[:, hub], hub) - work[hub]
    time = float(max(work[hub], back.max(initial=-np.inf)))
    return time, time


def _places(silos: Silos, names: Sequence[str]) -> list[int]:
    """Positions of silos by their names."""
    if unknown := [name for name in names if name not in silos.names]:
        raise _broken(f'there is no silo "{unknown[0]}"')
    return [silos.names.index(name) for name in names]


def _broken(what: str) -> StoreError:
    return StoreError(what, where="the record", mend="Restore it, or design again with --fresh.")


def _limits(values: Any) -> Float64[ndarray, "*shape"]:
    """Numbers with infinity for None."""
    array = np.array(values, dtype=object)
    return np.where(array == None, np.inf, array).astype(np.float64)  # noqa: E711
