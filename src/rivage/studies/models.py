"""The personal models of a trial in one file, ``models.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast

from rivage.core.trial_records import TrialRecord
from rivage.decentralized import gossip
from rivage.decentralized.gossip import GossipAlgorithm
from rivage.federated.algorithm import Predictor
from rivage.federated.engine import Outcome
from rivage.learning.bundle import ModelBundle, Provenance
from rivage.learning.params import to_numpy
from rivage.studies.stage import Stage
from rivage.studies.study_faults import is_decentralized
from rivage.studies.study_tables import Method

__all__ = ["MODELS", "save_chosen", "save_models"]

MODELS = "models.safetensors"


def save_models(stage: Stage, method: Method, identity: str, outcome: Outcome, path: Path) -> str:
    """Write the personal models; returns a notice when they are too large to be kept."""
    evaluations = [outcome.seen] if outcome.unseen is None else [outcome.seen, outcome.unseen]
    predictors = {c: p for evaluation in evaluations for c, p in evaluation.predictors.items()}
    scores = {
        c: s
        for evaluation in evaluations
        for c, s in zip(evaluation.columns["clients"], evaluation.columns["test"], strict=True)
    }
    if any(evaluation.dropped for evaluation in evaluations):
        return f"{method.name}: personal models exceed 256 MiB and are not saved"
    general = _general(stage, method, outcome)
    ModelBundle.collect(
        ((c, to_numpy(p.params), to_numpy(p.mix), scores[c]) for c, p in predictors.items()),
        newcomer=None if general is None else (to_numpy(general.params), to_numpy(general.mix)),
        settings=stage.study.task,
        task=stage.task,
        provenance=Provenance(
            run=identity,
            method=method.name,
            seed=stage.seed,
            references=(asdict(method.algorithm.reference),),
        ),
        neighbours={c: p.neighbours for c, p in predictors.items()},
    ).save(path)
    return ""


def _general(stage: Stage, method: Method, outcome: Outcome) -> Predictor | None:
    """What clients get that nobody knows yet: the general model, of silos their average."""
    if is_decentralized(method.algorithm):
        silos = cast(GossipAlgorithm, method.algorithm)
        return gossip.predictor(silos, silos.start(outcome.state["params"]))
    if not method.algorithm.federates:
        return None
    return method.algorithm.predictor(outcome.state, {}, None, stage.task)


def save_chosen(stage: Stage, method: Method, trial: TrialRecord, candidates: Mapping[str, TrialRecord]) -> None:
    """One bundle with every client's chosen model; newcomers get the preferred candidate that has a general model."""
    paths = {name: candidate.folder / MODELS for name, candidate in candidates.items()}
    if not all(path.exists() for path in paths.values()):
        return  # a candidate's models were too large to be saved
    bundles = {name: ModelBundle.load(path) for name, path in paths.items()}
    chosen = {
        client: bundles[name]
        for choice in trial.events("choice")
        for client, name in zip(choice["clients"], choice["chosen"], strict=True)
    }
    general = (bundles[name] for name in trial.events("choice")[0]["among"] if bundles[name].newcomer is not None)
    source = next(general, None)
    ModelBundle.collect(
        ((client, *bundle.parts(client), bundle.personal(client).score) for client, bundle in chosen.items()),
        newcomer=None if source is None else source.parts(None),
        settings=stage.study.task,
        task=stage.task,
        provenance=Provenance(
            run=trial.hash,
            method=method.name,
            seed=stage.seed,
            references=(asdict(method.algorithm.reference),),
        ),
        neighbours={client: bundle.personal(client).neighbours for client, bundle in chosen.items()},
    ).save(trial.folder / MODELS)
