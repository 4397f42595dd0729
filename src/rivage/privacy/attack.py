"""The protocol of an attack, and what it is given to work with.

An attack is one frozen dataclass of settings in a file of its own. It names the least view it needs, gets that view, a
question and tools, and answers; the evaluator, which knows the truth, grades the answer. Whatever needs the target's
data or another truth is no attack but an *oracle*, and says so in ``oracle``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from rivage.core.registry import Registry
from rivage.core.seeding import Streams
from rivage.federated.algorithm import Reference

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["ATTACKS", "Asks", "Attack", "Meter", "Tools"]

Asks = Literal["attribute", "membership", "model", "record", "property"]


@dataclass(slots=True)
class Meter:
    """What an attack has cost so far.

    Args:
        evaluations: records put through a model, forward or backward, each counted once.
    """

    evaluations: int = 0

    def count(self, records: int) -> None:
        """Add so many."""
        self.evaluations += records


@dataclass(frozen=True, slots=True)
class Tools:
    """What an attack may use beside its view.

    Args:
        task: architecture and loss, which every party of the training knows.
        streams: randomness of the attack; has nothing to do with the seed of the run.
        meter: to be told of every model evaluation.
        shared: what attacks of one audit may share, such as reference models; keys name all that a value depends on.
    """

    task: Task
    streams: Streams
    meter: Meter = field(default_factory=Meter)
    shared: dict[Any, Any] = field(default_factory=dict)


@runtime_checkable
class Attack(Protocol):
    """One attack."""

    reference: ClassVar[Reference]
    asks: ClassVar[Asks]
    """What kind of question it answers."""
    view: ClassVar[type]
    """The least view it needs; a class of `rivage.privacy.views`."""
    oracle: ClassVar[str]
    """What truth it is told that an attacker would not know; empty for a real attack."""

    def run(self, view: Any, question: Any, tools: Tools) -> Any:
        """The answer.

        Raises:
            Refused: if the view does not hold what the attack needs; the reason is reported.
        """
        ...


ATTACKS = Registry(
    "rivage.attacks",
    "attack",
    {
        "active_attributes": "rivage.privacy.active:ActiveAttributes",
        "gradient_attributes": "rivage.privacy.gradient_attributes:GradientAttributes",
        "isolated_attributes": "rivage.privacy.active:IsolatedAttributes",
        "model_attributes": "rivage.privacy.model_attributes:ModelAttributes",
        "lira": "rivage.privacy.lira:LiRA",
        "local_lira": "rivage.privacy.lira:LocalLiRA",
        "local_loss_threshold": "rivage.privacy.loss_threshold:LocalLossThreshold",
        "analytic_inversion": "rivage.privacy.inversion:AnalyticInversion",
        "idlg": "rivage.privacy.inversion:IDLG",
        "emulator": "rivage.privacy.emulator:Emulator",
        "cosine_inversion": "rivage.privacy.gradient_matching:CosineInversion",
        "dlg": "rivage.privacy.gradient_matching:DLG",
        "local_model": "rivage.privacy.local_model:LocalModel",
        "local_rmia": "rivage.privacy.rmia:LocalRMIA",
        "loss_threshold": "rivage.privacy.loss_threshold:LossThreshold",
        "property": "rivage.privacy.properties:PropertyInference",
        "rmia": "rivage.privacy.rmia:RMIA",
        "fedmia": "rivage.privacy.fedmia:FedMIA",
        "white_box": "rivage.privacy.white_box:WhiteBox",
        "zari21": "rivage.privacy.trajectories:Trajectories",
    },
)
"""Kind -> class. ``rivage audit`` runs them all unless some are named."""
