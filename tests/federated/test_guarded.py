from __future__ import annotations

from typing import Any

import pytest

from rivage.core.errors import ConfigError
from rivage.federated.guarded import Guarded, compose, preference


def evaluation(losses: list[float | None], errors: list[float | None], scores: list[float]) -> dict[str, Any]:
    return {
        "event": "evaluation",
        "round": 3,
        "group": "seen",
        "clients": [4, 7],
        "skipped": 0,
        "test": scores,
        "validation_loss": losses,
        "validation_se": errors,
    }


EVENTS = {
    "local": evaluation([0.9, 0.1], [0.1, 0.05], [0.5, 0.9]),
    "fedavg": evaluation([0.3, 0.5], [0.1, 0.1], [0.8, 0.6]),
}


def test_each_client_gets_the_columns_of_its_choice() -> None:
    judged, choice = compose(EVENTS, ["fedavg", "local"])
    assert choice["chosen"] == ["fedavg", "local"]
    assert judged["test"] == [0.8, 0.9]
    assert judged["validation_loss"] == [0.3, 0.1]
    assert judged["clients"] == choice["clients"] == [4, 7]
    later = {**EVENTS, "fedavg": {**EVENTS["fedavg"], "round": 9}}
    assert [event["round"] for event in compose(later, ["local", "fedavg"])] == [9, 9]


def test_the_preference_is_the_populations() -> None:
    assert preference(EVENTS) == ("fedavg", "local")
    assert preference({"fedavg": EVENTS["local"], "local": EVENTS["fedavg"]}) == ("local", "fedavg")


def test_an_order_of_ones_own_keeps_what_comes_first_unless_it_is_clearly_worse() -> None:
    close = {
        "local": evaluation([0.39, 0.1], [0.1, 0.1], [0.5, 0.9]),
        "fedavg": evaluation([0.3, 0.5], [0.1, 0.1], [0.8, 0.6]),
    }
    assert compose(close, ["local", "fedavg"])[1]["chosen"] == ["local", "local"]
    assert compose(close, ["fedavg", "local"])[1]["chosen"] == ["fedavg", "local"]


def test_unknown_losses_follow_the_population() -> None:
    events = {name: {**event, "validation_loss": [None, None]} for name, event in EVENTS.items()}
    assert compose(events, ["fedavg", "local"])[1]["chosen"] == ["fedavg", "fedavg"]


def test_among_names_each_method_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        Guarded(among=("a", "a"))
