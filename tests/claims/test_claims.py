"""Quick claims hold whenever their data are here; slow ones run under ``pytest -m slow`` and `rivage reproduce`."""

from __future__ import annotations

import pytest

from rivage.studies.claims import CLAIMS


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if claim.cost == "slow" else []) for name, claim in CLAIMS.items()],
)
def test_claim(name: str) -> None:
    outcome = CLAIMS[name].run()
    if outcome.verdict == "not tested":
        pytest.skip(outcome.detail)
    assert outcome.verdict == "holds", outcome.detail
    assert outcome.measured is not None
