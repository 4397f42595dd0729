"""The claimed ε of a trial, held against canaries within an audit."""

from __future__ import annotations

from collections.abc import Sequence

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.federated.secagg import SecAgg
from rivage.studies.audit_attack import Row, reason
from rivage.studies.audit_epsilon import audited_epsilon, planted_at
from rivage.studies.audit_scene import Scene
from rivage.studies.audit_settings import EPSILON

__all__ = ["asked_claims", "claims", "require_claim"]


def require_claim(scene: Scene) -> None:
    """Refuse to test a claim that nobody makes.

    Raises:
        ConfigError: where this is asked for by name.
    """
    if EPSILON in scene.settings.attacks and scene.trial.promise is None:
        raise ConfigError(
            f'"{scene.trial.name}" claims no epsilon, so there is nothing to test',
            where="--attacks epsilon",
            mend="Name a method with noise by --method, or train with some, such as "
            'collector.kind = "private_mean" or work.noise.',
        )


def _asked_for(scene: Scene) -> bool:
    return scene.trial.promise is not None and (not scene.settings.attacks or EPSILON in scene.settings.attacks)


def asked_claims(scene: Scene, rows: Sequence[Row]) -> list[Row]:
    """Those of the rows that this audit asks for: with the same canaries; none where attacks alone are named."""
    if not _asked_for(scene):
        return []
    client = planted_at(scene.trial, scene.targets[0])
    return [row for row in rows if row["client"] == client]


def claims(scene: Scene, known: Sequence[Row], not_run: list[dict[str, str]], elapsed: float) -> Sequence[Row]:
    """The claimed ε held against canaries, where one is claimed and this is asked for.

    Args:
        scene: what is audited.
        known: rows of earlier audits, which are kept.
        not_run: gets the reason why nothing was tested.
        elapsed: seconds since the audit began.
    """
    if not _asked_for(scene) or asked_claims(scene, known):
        return known
    budget = scene.settings.budget
    if budget and elapsed > budget:
        why = f"the budget of {budget:g} s is spent"
    elif budget and isinstance(scene.trial.collector, SecAgg):
        why = "a training under secure aggregation with canaries takes minutes, and there is a budget"
    else:
        try:
            row = audited_epsilon(scene.trial, scene.targets[0], Streams(scene.seed).child(EPSILON))
            return known if row is None else [*known, row]
        except Exception as error:  # whatever goes wrong stops nothing else
            why = reason(error)
    not_run.append({"attack": EPSILON, "question": "claim", "reason": why})
    return known
