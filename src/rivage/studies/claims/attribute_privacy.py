"""What differential privacy does to attribute inference and to the model: two hospitals of `attribute_scenarios`.

The network on charges under ε = 1, δ = 10⁻⁶ for the whole training. Of *records*, each hospital trains by DP-SGD; the
clip is half of what the paper states, as our loss is half of theirs. Of *clients*, the server clips what each hospital
changed, and adds noise to the sum of the two. The paper's clip of 5 · 10⁵ is one of gradients; what a hospital changes
in a round has a norm of 3 to 5, so that the clip is looked for, and the best is taken in hindsight.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from rivage.core.errors import ProtocolError
from rivage.federated.accounting import noise_for
from rivage.federated.user_privacy import PrivateMean
from rivage.privacy.model_attributes import Decision, ModelAttributes
from rivage.privacy.views import Eavesdropper
from rivage.studies.claims.attribute_inference import (
    PAPER,
    SEEDS,
    Found,
    attacked,
    examined,
    mean,
    tested,
    told,
    verdict,
)
from rivage.studies.claims.attribute_scenarios import Scene, overheard
from rivage.studies.claims.claim import Claim, Outcome

__all__ = ["CLAIMS", "Shared", "of_clients", "of_records"]

_EPSILON, _DELTA, _ROUNDS = 1.0, 1e-6, 100
_DRAWS = range(10)
_CLIPS = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0)


@cache
def of_records(seed: int, clip: float = 2.5e5) -> Found:
    """The network under privacy of records."""
    records, batch = 603, 32
    steps = _ROUNDS * -(-records // batch)
    noise = noise_for(_EPSILON, _DELTA, sampling=batch / records, steps=steps)
    private: dict[str, Any] = {
        "clip": clip,
        "noise": noise,
        "delta": _DELTA,
        "batches": "poisson",
        "denominator": "expected",
    }
    with overheard("net", "random", seed, **private) as scene:
        return attacked(scene, "net", "smoker", gradients=False)


@dataclass(frozen=True, slots=True)
class Shared:
    """What a training under privacy of clients came to.

    Args:
        error: mean absolute error of the shared model on test records, in dollars.
        naive: the same of the median.
        link: accuracy of who reads the link of a client, and asks the last model it returned.
        model: accuracy of who asks the last model that left the server, which is all that is promised to be private.
    """

    error: float
    naive: float
    link: float
    model: float


@cache
def of_clients(seed: int, clip: float | None) -> Shared | None:
    """The network under privacy of clients; None if training diverges.

    Args:
        seed: of everything.
        clip: of what a client changes; None trains without clip and noise.
    """
    noise = noise_for(_EPSILON, _DELTA, steps=_ROUNDS)
    collector = None if clip is None else PrivateMean(noise=noise, clip=clip, delta=_DELTA)
    try:
        with overheard("net", "random", seed, collector) as scene:
            link, model = (
                float(np.mean([_right(scene, client, returned=returned) for client in range(len(scene.clients))]))
                for returned in (True, False)
            )
            return Shared(scene.error, scene.naive_error, link, model)
    except ProtocolError:  # no update is a number any more
        return None


def _right(scene: Scene, client: int, *, returned: bool) -> float:
    """Share of a client's people whose answer is right, by its last model or by the last one sent to it."""
    view, question = Eavesdropper(scene.log, client), scene.question(client, "smoker")
    tools = scene.tools("passive", client)
    if returned:
        values = ModelAttributes().run(view, question, tools).values
    else:
        values = Decision()(view.last().sent, question, tools)
    return float((values == scene.truth(client, "smoker")).mean())


# --- statements -------------------------------------------------------------------------------------------------------


def _records() -> Outcome:
    plain = [examined("net", "random", "smoker", seed, gradients=False) for seed in SEEDS]
    found = [of_records(seed) for seed in SEEDS]
    before, after = mean(plain), mean(found)
    gains = {name: after[name] - before[name] for name in ("passive", "active 10", "active 50")}
    wanted = {f"{name} gains at most 2 points": gain <= 0.02 for name, gain in gains.items()}
    outcome = verdict(max(gains.values()), wanted, after)
    errors = [float(np.mean([each.error for each in part])) for part in (plain, found)]
    note = f"without noise: {told(before)}; mean absolute error {errors[0]:.0f}, with noise {errors[1]:.0f}"
    return Outcome(outcome.measured, outcome.verdict, f"{outcome.detail}; {note}")


def _means(clip: float | None) -> Shared | None:
    """Over more seeds than elsewhere, as noise is most of what is measured; None if a training diverges."""
    found = [each for seed in _DRAWS if (each := of_clients(seed, clip)) is not None]
    if len(found) < len(_DRAWS):
        return None
    return Shared(*(float(np.mean([getattr(each, name) for each in found])) for name in Shared.__slots__))


def _line(clip: float | None, found: Shared | None) -> str:
    name = "no noise" if clip is None else f"clip {clip:g}"
    if found is None:
        return f"{name}: diverges"
    return f"{name}: error {found.error:.0f}, link {100 * found.link:.1f} %, shared model {100 * found.model:.1f} %"


def _clients() -> Outcome:
    plain = _means(None)
    assert plain is not None, "without noise it converges"
    found = {clip: _means(clip) for clip in _CLIPS}
    trained = [each for each in found.values() if each is not None]
    best = min(each.error for each in trained)
    wanted = {
        "no clip has an error below that of the median": best >= plain.naive,
        "no attack gains 2 points": max(max(each.link, each.model) for each in trained) <= plain.link + 0.02,
    }
    faults = [f"not: {what}" for what, held in wanted.items() if not held]
    lines = [f"median: error {plain.naive:.0f}", _line(None, plain), *(_line(*each) for each in found.items())]
    return Outcome(best / plain.naive, "fails" if faults else "holds", "; ".join([*lines, *faults]))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="attributes-under-record-privacy",
        paper=PAPER,
        where="epsilon 1, delta 1e-6, clip as in the paper; own figures",
        statement="Differential privacy of records makes no attack stronger, to two points.",
        expected="<= 0.02",
        tolerance=0.0,
        cost="slow",
        run=tested(_records),
    ),
    Claim(
        name="attributes-under-client-privacy",
        paper="own measurement",
        where="epsilon 1, delta 1e-6, the network on charges, clips in hindsight, 10 seeds",
        statement="Two clients are too few to hide one of them: under differential privacy of clients no clip leaves a "
        "model that predicts charges better than their median.",
        expected=">= 1, error over that of the median",
        tolerance=0.0,
        cost="slow",
        run=tested(_clients),
    ),
)
"""On the insurance file."""
