"""A long run does not grow."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

from rivage.core.messages import LogPolicy
from rivage.federated import Phase, Trial
from rivage.federated.checkpoint import Files
from rivage.federated.engine import Session
from rivage.federated.execution import Execution
from rivage.federated.scaffold import Scaffold
from rivage.federated.sparsifying import TopK
from rivage.simulation.devices import LogNormal
from rivage.testing.toys import linear_clients, linear_task

WARM, ROUNDS = 100, 1000


def test_memory_is_flat_over_a_thousand_rounds(tmp_path: Path) -> None:
    """Records, memories and checkpoints go to files; what Python holds after round 1000 is what it held after 100."""
    population = linear_clients((4, 7, 1, 12, 5, 6))
    trial = Trial(
        name="scaffold",
        algorithm=Scaffold(learning_rate=0.01, work=Phase(batch_size=4)),
        population=population,
        task=linear_task(population),
        rounds=ROUNDS,
        cohort=3,
        every=200,
        stages=(TopK(count=2),),
        devices=LogNormal(),
        execution=Execution(workers=1),
    )
    held = {}
    with Files(tmp_path, LogPolicy("none"), {}) as files, Session(trial, files) as session:
        for event in session:
            if event["round"] == WARM - 2:
                tracemalloc.start()
            if event["round"] + 1 in (WARM, ROUNDS // 2, ROUNDS):
                gc.collect()
                held[event["round"] + 1] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert session.done == ROUNDS
    assert abs(held[ROUNDS] - held[WARM]) < 200_000, held  # an event alone has about a kilobyte: 900 of them show
    assert abs(held[ROUNDS] - held[ROUNDS // 2]) < 100_000, held
    assert len(files.record.events()) > ROUNDS
