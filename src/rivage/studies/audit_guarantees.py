"""What must hold of an attack's answer, whatever the data: an assertion of the evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivage.core.errors import ProtocolError
from rivage.privacy.attack import Attack, Tools
from rivage.privacy.attribute_baselines import markov_bound
from rivage.privacy.attribute_grading import AttributeCase
from rivage.privacy.grading import Case
from rivage.privacy.model_attributes import ModelAttributes

__all__ = ["guarantee"]

_ROUNDING = 1e-6  # records on the very edge may be decided either way


def guarantee(attack: Attack, view: Any, case: Case, piece: Mapping[str, Any], tools: Tools) -> dict[str, float]:
    """The Markov bound on the accuracy of model-based attribute inference, where it says anything; see `markov_bound`.

    Args:
        attack: that has answered.
        view: that it had.
        case: that it was asked.
        piece: what was kept of the answer.
        tools: of the attack.

    Raises:
        ProtocolError: if the answer is worse than it can be: the attack is broken.
    """
    if not (isinstance(attack, ModelAttributes) and isinstance(case, AttributeCase)):
        return {}
    asked = case.question
    params, _ = attack.estimate(view, asked, tools)
    bound = markov_bound(tools.task, params, asked.attribute.plug(asked.x, case.truth), asked.y, asked.attribute)
    if bound is None or bound <= 0:
        return {}
    accuracy = 1 - float(piece["attack"].mean())
    if accuracy < bound - _ROUNDING:
        raise ProtocolError(
            f"the accuracy is {accuracy:.4f}, and that of this attack on this model cannot be below {bound:.4f}",
            mend="This is a fault of the attack.",
        )
    return {"markov_bound": bound}
