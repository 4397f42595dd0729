"""Statements about what messages of a single client tell: its local model, and single records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from scipy.optimize import minimize

from rivage.data.population import Samples
from rivage.federated.algorithm import Phase
from rivage.federated.fedavg import FedAvg
from rivage.privacy.emulator import Emulator, jensen_shannon
from rivage.privacy.gradient_matching import DLG, CosineInversion
from rivage.privacy.inversion import IDLG, AnalyticInversion
from rivage.privacy.local_model import reconstruct
from rivage.privacy.questions import ModelAnswer, RecordQuestion
from rivage.privacy.record_matching import match
from rivage.privacy.views import Exchange
from rivage.studies.claims.claim import Claim, Outcome
from rivage.studies.claims.eavesdropping_scenarios import (
    Decayed,
    breast_cancer_clients,
    classifier,
    few_records,
    least_squares_clients,
    logistic_task,
    overheard,
    regression_task,
    ridge_optimum,
)

__all__ = ["CLAIMS", "found_records", "heard", "optimum_of", "relative"]

PAPER = "Driouich et al., arXiv 2210.16205; Diana et al., AAAI 2025"
FEATURES = (2, 8, 20, 40)
_RATE = 0.1  # with the loss ½ (y − h)²: 0.05 with (y − h)²


def relative(answer: ModelAnswer, truth: Float64[ndarray, "dim"]) -> float:
    """Error relative to the norm of the truth; infinite without an answer."""
    if answer.params is None:
        return float("inf")
    return float(np.linalg.norm(answer.params - truth) / np.linalg.norm(truth))


def optimum_of(samples: Samples, decay: float) -> Float64[ndarray, "dim"]:
    """The logistic model with intercept that these records alone would give, pulled to 0: an oracle."""
    wide, y = np.column_stack([samples.x, np.ones(len(samples.y))]), samples.y

    def objective(w: Float64[ndarray, "dim"]) -> tuple[float, Float64[ndarray, "dim"]]:
        z = wide @ w
        loss = float(np.mean(np.logaddexp(0, z) - y * z) + decay / 2 * w @ w)
        return loss, wide.T @ (1 / (1 + np.exp(-z)) - y) / len(y) + decay * w

    result: ndarray = minimize(objective, np.zeros(wide.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    return result


def heard(
    features: int,
    messages: int,
    *,
    cohort: int | None = 5,
    epochs: int = 2,
    batch_size: int | None = None,
    decay: float = 0.0,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[list[Exchange], Float64[ndarray, "dim"]]:
    """The first messages of one of ten least-squares clients, and its optimum.

    Args:
        features: d; D = d + 1.
        messages: of the client.
        cohort: of ten clients per round; None takes all.
        epochs: E.
        batch_size: None for full batches.
        decay: λ of the clients' weight decay.
        dtype: of training and log.
        seed: of data, cohorts and batches.
    """
    population = least_squares_clients(features, seed=seed)
    work = Phase(epochs=epochs, batch_size=batch_size)
    algorithm: Any = FedAvg(learning_rate=_RATE, work=work)
    if decay:
        algorithm = Decayed(learning_rate=_RATE, decay=decay, work=work)
    rounds = messages if cohort is None else 2 * messages + 4 * round(messages**0.5) + 6
    task = regression_task(population, dtype)
    with overheard(algorithm, population, task, rounds=rounds, cohort=cohort, seed=seed) as found:
        told = list(found.client().exchanges())[:messages]
    assert len(told) == messages, "four standard deviations more rounds than are needed on average"
    return told, ridge_optimum(population, 0, decay)


def _exact(epochs: int = 2, decay: float = 0.0, features: tuple[int, ...] = FEATURES) -> Iterator[float]:
    for count in features:
        for seed in range(2):
            yield relative(*_solved(count, count + 2, epochs=epochs, decay=decay, seed=seed))


def _solved(features: int, messages: int, **settings: Any) -> tuple[ModelAnswer, Float64[ndarray, "dim"]]:
    told, truth = heard(features, messages, **settings)
    return reconstruct(told), truth


def _below(limit: float, errors: list[float], detail: str) -> Outcome:
    worst = max(errors)
    return Outcome(worst, "holds" if worst < limit else "fails", detail)


def exact_recovery() -> Outcome:
    """D + 1 messages, and one less."""
    errors = list(_exact())
    refused = [_solved(count, count + 1)[0] for count in FEATURES]
    if any(answer.params is not None for answer in refused):
        return Outcome(max(errors), "fails", "a model was given from D messages")
    return _below(1e-9, errors, f"d in {FEATURES}, 2 seeds, float64, D + 1 messages; from D messages: no model")


def float32_recovery() -> Outcome:
    """The same from logs of float32: 4 (D + 1) messages of float32 training; D + 1 messages rounded in the log."""
    trained = [relative(*_solved(d, 4 * (d + 2), dtype=torch.float32)) for d in FEATURES]
    rounded = []
    for d in FEATURES:
        told, truth = heard(d, d + 2)
        short = [Exchange(e.round, 0, e.sent.astype(np.float32), e.returned.astype(np.float32)) for e in told]
        rounded.append(relative(reconstruct(short), truth))
    detail = (
        f"float32 training, 4 (D + 1) messages: {max(trained):.1e}; float32 log, D + 1 messages: {max(rounded):.1e}"
    )
    return _below(1e-3, trained + rounded, detail)


def conditioning() -> Outcome:
    """All clients in every round: no model for 20 features, though there are more messages than unknowns."""
    answers = [_solved(20, count, cohort=None, seed=seed)[0] for count in (22, 88) for seed in range(2)]
    refused = sum(answer.status == "ill-conditioned" and answer.params is None for answer in answers)
    condition = min(answer.facts["condition"] for answer in answers)
    return Outcome(
        float(refused), "holds" if refused == 4 else "fails", f"4 logs; least condition number {condition:.1e}"
    )


def epochs_and_decay() -> Outcome:
    """E in {1, 5}, without and with weight decay."""
    found = {(e, decay): max(_exact(e, decay, (20,))) for e in (1, 5) for decay in (0.0, 0.1)}
    detail = ", ".join(f"E = {e}, decay {decay:g}: {error:.1e}" for (e, decay), error in found.items())
    return _below(1e-8, list(found.values()), f"d = 20, 22 messages. {detail}")


def mini_batches() -> Outcome:
    """Batches of 32: still nearer than the last returned model."""
    ratios = []
    for features in (2, 4, 8, 20):
        for seed in range(3):
            told, truth = heard(features, 10 * (features + 2), batch_size=32, dtype=torch.float32, seed=seed)
            last = np.linalg.norm(told[-1].returned - truth) / np.linalg.norm(truth)
            ratios.append(relative(reconstruct(told), truth) / float(last))
    nearer = sum(ratio < 1 for ratio in ratios)
    detail = f"{nearer} of 12 nearer; median ratio of errors {np.median(ratios):.2f}, worst {max(ratios):.2f}"
    return Outcome(float(np.median(ratios)), "holds" if nearer >= 11 else "fails", detail)


def error_estimate() -> Outcome:
    """Batches of 32: what the attack says of its error, over the error."""
    ratios = []
    for features in (2, 4, 8, 20, 40):
        for epochs in (1, 2, 5):
            for times in (2, 4):
                count = times * (features + 2)
                told, truth = heard(features, count, epochs=epochs, batch_size=32, dtype=torch.float32, seed=times)
                answer = reconstruct(told)
                if answer.params is not None:
                    wrong = float(np.linalg.norm(answer.params - truth))
                    ratios.append(answer.facts["error"] * float(np.linalg.norm(answer.params)) / wrong)
    within = float(np.mean([1 / 3 < ratio < 3 for ratio in ratios]))
    detail = f"{len(ratios)} answers: {min(ratios):.2f} to {max(ratios):.2f}, in the median {np.median(ratios):.2f}"
    return Outcome(within, "holds" if len(ratios) >= 27 and within >= 0.9 else "fails", detail)


def emulated_classifier(seeds: int = 3) -> Outcome:
    """Five heterogeneous clients; error of the emulator over that of the last returned model."""
    ratios, models, gaps = [], [], []
    for seed in range(seeds):
        population = breast_cancer_clients(seed=seed)
        algorithm = Decayed(learning_rate=1.0, decay=0.01, work=Phase(epochs=5, batch_size=None))
        with overheard(algorithm, population, logistic_task(population), rounds=150, cohort=3, seed=seed) as found:
            for client in range(population.size):
                samples = population.client(client).train
                truth, last = optimum_of(samples, 0.01), found.client(client).last().returned
                answer = Emulator().run(found.client(client), None, found.tools(seed))
                before, after = float(np.linalg.norm(last - truth) / np.linalg.norm(truth)), relative(answer, truth)
                p, q, r = (_probabilities(samples, w) for w in (last, answer.params, truth))
                ratios.append(after / before)
                models.append((before, after))
                gaps.append((jensen_shannon(p, r), jensen_shannon(q, r), np.abs(p - r).mean(), np.abs(q - r).mean()))
    before, after = np.median(models, axis=0)
    jsd_before, jsd_after, gap_before, gap_after = np.median(gaps, axis=0)
    detail = (
        f"medians over {len(ratios)} clients: relative error {before:.3f} -> {after:.3f}, mean probability difference "
        f"{gap_before:.3f} -> {gap_after:.3f}, Jensen-Shannon divergence {jsd_before:.1e} -> {jsd_after:.1e} bit; "
        f"worst ratio of errors {max(ratios):.2f}"
    )
    median = float(np.median(ratios))
    return Outcome(median, "holds" if median <= 1 / 3 and max(ratios) < 1 else "fails", detail)


def _probabilities(samples: Samples, w: Any) -> Float64[ndarray, "n 2"]:
    odds = samples.x @ w[:-1] + w[-1]
    one = 1 / (1 + np.exp(-odds))
    return np.column_stack([1 - one, one])


def one_record() -> Outcome:
    """Twenty single records, one and four local steps."""
    population = few_records([1] * 20)
    worst, labels = 0.0, 0
    for epochs in (1, 4):
        algorithm = FedAvg(learning_rate=0.1, work=Phase(epochs=epochs, batch_size=None))
        with overheard(algorithm, population, classifier(population), rounds=1) as found:
            for client, (x, y) in enumerate(population.records):
                view, tools = found.client(client), found.tools()
                answer = AnalyticInversion().run(view, RecordQuestion(1), tools)
                assert answer.x is not None
                if answer.status != "recovered" or len(answer.x) != 1:
                    return Outcome(None, "fails", f"client {client}: status {answer.status}")
                worst = max(worst, float(np.abs(answer.x - x).max()))
                guessed = IDLG().run(view, RecordQuestion(1), tools).y
                labels += guessed is not None and guessed.tolist() == y.tolist()
    verdict = "holds" if worst < 1e-8 and labels == 40 else "fails"
    return Outcome(worst, verdict, f"{labels} of 40 labels read")  # type: ignore[arg-type]


def found_records(attack: Any, records: int, clients: int = 8) -> tuple[float, float, float]:
    """Share of records found to 0.05 in every number, that of the mean record, and evaluations per client."""
    population = few_records([records] * clients)
    algorithm = FedAvg(learning_rate=0.1, work=Phase(epochs=2, batch_size=None))
    shares, means, evaluations = [], [], 0
    with overheard(algorithm, population, classifier(population), rounds=1) as training:
        for client, (x, _) in enumerate(population.records):
            tools = training.tools(client)
            answer = attack.run(training.client(client), RecordQuestion(records), tools)
            middle = np.zeros(x.shape[1])  # inputs are standard normal
            shares.append(match(answer.x, x, middle).exact)
            means.append(match(np.tile(middle, (records, 1)), x, middle).exact)
            evaluations += tools.meter.evaluations
    return float(np.mean(shares)), float(np.mean(means)), evaluations / clients


def searched_records() -> Outcome:
    """One, two and four records through two local steps; the search by cosine and that by L-BFGS."""
    found, lines = {}, []
    for name, attack in (
        ("analytic_inversion", AnalyticInversion()),
        ("dlg", DLG()),
        ("cosine_inversion", CosineInversion()),
    ):
        for records in (1, 2, 4):
            found[name, records] = found_records(attack, records)
        lines.append(f"{name} {', '.join(f'{found[name, n][0]:.2f}' for n in (1, 2, 4))}")
    least = min(found["cosine_inversion", 1][0], found["dlg", 1][0])
    idle = max(mean for _, mean, _ in found.values())
    verdict = "holds" if least >= 0.75 and found["cosine_inversion", 2][0] >= 0.75 and idle == 0 else "fails"
    return Outcome(least, verdict, f"share of 1, 2, 4 records: {'; '.join(lines)}; mean record {idle:.2f}")  # type: ignore[arg-type]


def _claim(name: str, statement: str, expected: float | str, run: Any, **other: Any) -> Claim:
    given: dict[str, Any] = {"paper": PAPER, "where": "Algorithm 2", "tolerance": 0.0, "cost": "quick"} | other
    return Claim(name=name, statement=statement, expected=expected, run=run, **given)


CLAIMS = (
    _claim(
        "local-model-exact",
        "D + 1 messages of a least-squares client determine its local optimum, D messages do not.",
        "relative error < 1e-9",
        exact_recovery,
    ),
    _claim(
        "local-model-float32",
        "A log in float32 gives the local optimum to its precision times the conditioning.",
        "relative error < 1e-3",
        float32_recovery,
    ),
    _claim(
        "local-model-conditioning",
        "With all clients in every round the messages of a least-squares client run out of directions: no model is "
        "returned, however many messages there are.",
        4,
        conditioning,
        where="Algorithm 2, derived",
    ),
    _claim(
        "local-model-epochs-and-decay",
        "The local optimum is found for any number of local epochs; with weight decay it is the ridge optimum.",
        "relative error < 1e-8",
        epochs_and_decay,
        where="Algorithm 2, derived",
    ),
    _claim(
        "local-model-mini-batches",
        "Under mini-batches the reconstruction is nearer to the local optimum than the last returned model.",
        "at least 11 of 12 clients",
        mini_batches,
        where="Theorem 1 (direction only)",
        cost="slow",
    ),
    _claim(
        "local-model-error-estimate",
        "Under mini-batches the error that the reconstruction estimates is within a factor of three of its error.",
        "in at least 90 % of 30 trainings",
        error_estimate,
        where="errors in variables, derived",
        cost="slow",
    ),
    _claim(
        "emulator-classifier",
        "An emulator of the client, descended from its last returned model, comes nearer to the local optimum of a "
        "logistic regression.",
        "median ratio of errors <= 1/3, all below 1",
        emulated_classifier,
        paper="Xu and Neglia, PPML at CCS 2021",
        where="emulation heuristic",
    ),
    _claim(
        "one-record-inverted",
        "A client with one record returns it: input to 1e-8 and label, for any number of local steps.",
        "largest error < 1e-8",
        one_record,
        paper="Phong et al., TIFS 2018; Zhao et al., arXiv 2001.02610",
        where="derived",
    ),
    _claim(
        "records-searched-for",
        "Single records of small clients are found by search from one update of several local steps, where the mean "
        "record matches none.",
        "at least 0.75 of single records by either search, and of two by cosine",
        searched_records,
        paper="Zhu et al., NeurIPS 2019; Geiping et al., NeurIPS 2020",
        where="direction only",
        cost="slow",
    ),
)
