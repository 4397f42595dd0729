"""Reference pages name everything that the code offers, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rivage.cli.app import main
from rivage.learning import LOSSES, METRICS, MODELS
from rivage.privacy.attack import ATTACKS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
VERBS = (
    *("run", "train", "advise", "play", "place", "design", "audit"),
    *("report", "verify", "reproduce", "cite", "doctor"),
)


def codes(text: str) -> set[str]:
    """Everything in backquotes, fenced blocks left out."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)))


@pytest.mark.parametrize("registry", [LOSSES, METRICS, MODELS], ids=["losses", "metrics", "models"])
def test_every_name_of_a_task_is_listed(registry: object) -> None:
    named = codes((REFERENCE / "settings.md").read_text(encoding="utf-8"))
    assert set(registry.builtin) <= named  # type: ignore[attr-defined]


def test_every_attack_is_listed() -> None:
    assert set(ATTACKS.builtin) <= codes((REFERENCE / "cli.md").read_text(encoding="utf-8"))


def test_every_option_of_every_verb_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    offered = set()
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        offered |= set(re.findall(r"│ (--[a-z]+)", capsys.readouterr().out))
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"--[a-z]+", text)) - {"--help", "--version"}
    assert listed == offered
    assert set(VERBS) == set(re.findall(r"^\| `rivage ([a-z]+)", text, re.MULTILINE))
