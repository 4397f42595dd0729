"""SCAFFOLD: control variates against client drift.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh. SCAFFOLD: stochastic controlled averaging for federated learning.
ICML 2020, arXiv 1910.06378, Algorithm 1 with option II.

The server keeps a model x and a control c, client k a control c_k; all controls start at 0. In a round client k takes
K local steps from y = x,

    y ← y − η_l (g_k(y) − c_k + c) ,        then        c_k⁺ = c_k − c + (x − y) / (K η_l) ,

so that c_k⁺ is the mean of the gradients it met. With S the clients that answered, of N,

    x ← x + η_g mean_S(y − x) ,             c ← c + (|S| / N) mean_S(c_k⁺ − c_k) ,

which keeps c the mean of all N controls. At a fixed point c_k = ∇F_k(x) and c = 0: SCAFFOLD with exact gradients ends
at the minimiser of (1/N) Σ_k F_k, whatever the number of local steps.

Deviations: the mean of models is weighted by training records, as in FedAvg; this changes the way there but not the
fixed point, where clients count alike. The model itself travels instead of its change. A client without a local step
keeps its control. Running means and variances of BatchNorm are no gradient steps and have no control. A client whose
memory is lost starts again from c_k = 0, and c then is no longer the mean of the controls.

Cost beyond FedAvg: twice the bytes in both directions; one vector of memory per client that ever took part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, Mean, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import Averaging, global_predictor

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["Scaffold"]


@dataclass(frozen=True, kw_only=True)
class Scaffold(Averaging):
    """FedAvg whose clients subtract their own mean gradient and add everyone's.

    Args:
        learning_rate: local step size η_l, > 0.
        server_rate: step size η_g at the server, > 0; 1 takes the mean of the models.
        work: local epochs and batch size. Parts that ``train`` leaves out are not corrected.
    """

    reference: ClassVar[Reference] = Reference(
        key="karimireddy20",
        authors="Sai Praneeth Karimireddy and Satyen Kale and Mehryar Mohri and Sashank J. Reddi "
        "and Sebastian U. Stich and Ananda Theertha Suresh",
        title="SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
        venue="ICML",
        year=2020,
        arxiv="1910.06378",
        part="Algorithm 1, option II",
    )
    forgetting: ClassVar[str] = "the server's control is then no longer the mean of the clients' controls"

    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"server_rate": (0.3, 1.0)}

    learning_rate: float = 0.1
    server_rate: float = 1.0
    work: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.server_rate, "server_rate", above=0)

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """The model, no control yet (one number per trainable parameter), and N."""
        params = task.initial(streams.seed("model"))
        return {
            "params": params,
            "control": torch.zeros_like(params[: task.layout.trainable]),
            "clients": params.new_tensor(clients),
        }

    def broadcast(self, state: State, client: int, task: Task) -> State:
        """Model and control."""
        return {"params": state["params"], "control": state["control"]}

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared model, with the drift c − c_k; it is 0 on what is not trained."""
        params, control = broadcast["params"], broadcast["control"]
        own = memory.get("control", torch.zeros_like(control))
        drift, buffers = control - own, task.dimension - task.layout.trainable
        return Local(
            params[None],
            drift=pad(drift, (0, buffers))[None] if buffers else drift[None],
            keep={"start": params, "own": own},
        )

    def finish(self, local: Local, task: Task) -> Update:
        """The trained model weighted by importance, the change of the control by 1; the control itself stays.

        Coordinates outside ``work.train`` do not move, and their controls, 0 at the start, stay 0.
        """
        assert local.drift is not None, "start sets it"
        size, own = task.layout.trainable, local.keep["own"]
        control = own
        if local.steps:
            moved = local.keep["start"][:size] - local.params[0, :size]
            control = moved.div_(local.steps * local.rate).sub_(local.drift[0, :size])
        payload = {"params": (local.params[0], local.weight), "control_change": (control - own, 1.0)}
        return Update(payload, memory={"control": control})

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """A step along the mean move, and the mean of all N controls; a model of weight 0 stays where it was."""
        change = received["control_change"].total / state["clients"]
        return {
            **state,
            "params": self._moved(state["params"], received["params"], task),
            "control": state["control"] + change,
        }

    def _moved(self, params: Tensor, received: Mean, task: Task) -> Tensor:
        if not received.weight > 0:
            return params
        size, mean = task.layout.trainable, received.mean
        missing = (1 - self.server_rate) * (mean - params)[:size]  # 0 exactly for η_g = 1: then this is the mean
        return torch.cat([mean[:size] - missing, mean[size:]])

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The shared model."""
        return global_predictor(state["params"])
