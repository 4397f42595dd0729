"""Quick claims hold whenever their data are here; slow ones run under ``pytest -m slow`` and `rivage reproduce`.

Those in FAILS do not hold, and the documentation says so; should one begin to hold, its page has to change.
"""

from __future__ import annotations

import pytest

from rivage.studies.claims import CLAIMS

NEEDS_FILES = {"flamby-heart-fine-tuned"}
NEEDS_FILES |= {"flamby-heart-fedavg", "ogb-on-web12", "adaptive-step-on-web12", "sketched-counts-on-web12"}
NEEDS_FILES |= {name for name in CLAIMS if name.startswith("delivery-") and name.endswith("-geant")}
NEEDS_FILES |= {name for name in CLAIMS if name.startswith(("topology-mnist-", "streams-mnist-"))}
NEEDS_FILES |= {name for name in CLAIMS if name.startswith(("overlay-", "race-"))}
NEEDS_FILES |= {name for name in CLAIMS if name.startswith("knnper-")}
NEEDS_FILES |= {name for name in CLAIMS if name.startswith("attributes-")}
NEEDS_FILES |= {
    name for name in CLAIMS if name.startswith("grid-") and name.split("-")[-1] in ("gru", "heart", "mnist", "text")
}
FAILS = {
    "knnper-fifo-recovers-from-an-onset",
    "delivery-beats-olag-topology-i",
    "delivery-near-offline-tree",
    "delivery-scarcity-geant",
    "delivery-scarcity-tree",
    "delivery-tracks-topology-i",
    "overlay-matcha-plus-geant-slow-access",
    "race-directed-with-push-sum",
}


def test_a_claim_without_its_files_is_not_tested_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVAGE_DATA", "nowhere")
    outcome = CLAIMS["flamby-heart-fedavg"].run()
    assert outcome.verdict == "not tested"
    assert "sha256" in outcome.detail


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if claim.cost == "slow" else []) for name, claim in CLAIMS.items()],
)
def test_claim(name: str, request: pytest.FixtureRequest) -> None:
    if name in NEEDS_FILES:
        request.getfixturevalue("data_root")
    outcome = CLAIMS[name].run()
    assert outcome.verdict == ("fails" if name in FAILS else "holds"), outcome.detail
    assert outcome.measured is not None
