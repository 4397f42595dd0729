"""A process of its own that asks CP-SAT for circuits with shared potentials: task on stdin, answer on stdout, in JSON.

Run as a file, with ``python -P``, it needs OR-tools and nothing of rivage. OR-tools brings a HiGHS of its own, which
clashes with others in one process; so nothing is imported here that could load another.
`rivage.decentralized.shared_bound` writes the task and says what an answer proves.

The task, whole numbers but for the seconds::

    {"nodes": N, "limit": T, "widest": W, "seconds": 20.0, "workers": 2,
     "circuits": [{"through": v, "arcs": [[i, j, c, r], …]}, …]}

Wanted are π ∈ [−W, W]^N and for each entry a simple circuit γ through v over its arcs, two silos or more, with

    π_i − π_j <= T − c on every arc of γ,     Σ c <= T |γ|,     Σ r <= T |γ|.

The second is the sum of the first along γ: the solver does not see it by itself.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Answer one task."""
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


def answer(task: dict[str, Any]) -> dict[str, Any]:
    """The status of the solver, and the arcs of each circuit where there are some; "MISSING" without OR-tools."""
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        return {"status": "MISSING", "circuits": []}
    model, limit = cp_model.CpModel(), task["limit"]
    potentials = [model.new_int_var(-task["widest"], task["widest"], f"pi {i}") for i in range(task["nodes"])]
    model.add(potentials[task["circuits"][0]["through"]] == 0)
    kept: dict[tuple[int, int], Any] = {}  # arcs that obey the potentials, when a circuit uses them
    chosen = []
    for circuit in task["circuits"]:
        uses = [(i, j, model.new_bool_var("")) for i, j, _, _ in circuit["arcs"]]
        left_out = [(i, i, model.new_bool_var("")) for i in range(task["nodes"]) if i != circuit["through"]]
        model.add_circuit(uses + left_out)
        for (i, j, use), (_, _, cost, _) in zip(uses, circuit["arcs"], strict=True):
            if (i, j) not in kept:
                kept[i, j] = model.new_bool_var("")
                model.add(potentials[i] - potentials[j] <= limit - cost).only_enforce_if(kept[i, j])
            model.add_implication(use, kept[i, j])
        for row in (2, 3):
            model.add(sum((arc[row] - limit) * use[2] for use, arc in zip(uses, circuit["arcs"], strict=True)) <= 0)
        chosen.append(uses)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = task["seconds"]
    solver.parameters.num_workers = task["workers"]
    status = solver.solve(model)
    found = chosen if status in (cp_model.OPTIMAL, cp_model.FEASIBLE) else []
    circuits = [[[i, j] for i, j, use in uses if solver.value(use)] for uses in found]
    return {"status": solver.status_name(status), "circuits": circuits}


if __name__ == "__main__":
    main()
