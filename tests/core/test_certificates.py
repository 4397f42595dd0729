"""Certificates: their JSON form, and a table of checks that exist."""

from __future__ import annotations

import dataclasses
import inspect
import json

import pytest

from rivage.core.certificates import CHECKS, Certificate

CERTIFICATE = Certificate(
    kind="bound",
    claim="No byte was sent beyond those recorded.",
    measured=10.0,
    reference=10.0,
    method="sum over the log",
    confidence=None,
    verdict="holds",
    check="wire_bytes",
    fields={"method": "fedavg", "seed": 0},
)


def test_the_seven_keys_of_the_contract_come_first():
    keys = ["kind", "claim", "measured", "reference", "method", "confidence", "verdict"]
    assert list(CERTIFICATE.as_dict())[:7] == keys


def test_json_and_back():
    assert Certificate.from_dict(json.loads(json.dumps(CERTIFICATE.as_dict()))) == CERTIFICATE


def test_certificates_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CERTIFICATE.verdict = "fails"  # type: ignore[misc]


@pytest.mark.parametrize("name", list(CHECKS.builtin))
def test_checks_are_functions_of_a_record_and_fields(name):
    parameters = list(inspect.signature(CHECKS.get(name)).parameters.values())
    assert parameters[0].name == "record"
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[1:])
