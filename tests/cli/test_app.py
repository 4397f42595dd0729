from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rivage import __version__
from rivage.cli import commands
from rivage.cli.app import _VERBS, main
from rivage.core.errors import ConfigError, StoreError

Capture = pytest.CaptureFixture[str]


def failing(error: BaseException) -> Callable[..., int]:
    def command(*arguments: Any, **options: Any) -> int:
        raise error

    return command


@pytest.fixture
def doctor_raises(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make the simplest verb fail with an error."""

    def patch(error: BaseException) -> None:
        monkeypatch.setattr("rivage.cli.doctor.examine", failing(error))

    return patch


def test_help_lists_the_verbs(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in _VERBS)
    assert main([]) == 0
    assert capsys.readouterr().out == out


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("verb", _VERBS)
def test_help_of_each_verb_ends_with_an_example_and_has_the_common_options(verb: str, capsys: Capture) -> None:
    assert main([verb, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.endswith(f"Example: {_VERBS[verb].example}")
    assert all(option in text for option in ("--seed", "--quiet", "--verbose", "--json"))
    assert "--no-" not in text


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["trian"], 'Did you mean "train"?'),
        (["doctor", "--jsn"], "Did you mean --json?"),
        (["train", "s.toml", "--frsh"], "Did you mean --fresh?"),
    ],
)
def test_wrong_words_exit_with_2_and_suggest_the_right_one(words: list[str], suggestion: str, capsys: Capture) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert suggestion in captured.err


def test_missing_arguments_and_bad_numbers_exit_with_2(capsys: Capture) -> None:
    assert main(["train"]) == 2
    assert main(["doctor", "--seed", "x"]) == 2
    assert "rivage doctor --help" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("a", where="b", mend="C."), 2, "error: b: a. C.\n"),
        (StoreError("a"), 1, "error: a\n"),
        (OSError(28, "No space left on device", "runs/x"), 1, "error: runs/x: No space left on device\n"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "error: unexpected ZeroDivisionError: division by zero. This is a fault of rivage or of a plug-in; "
            "--verbose shows where.\n",
        ),
        (MemoryError(), 1, "error: unexpected MemoryError. This is a fault of rivage or of a plug-in; "
            "--verbose shows where.\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)  # fmt: skip
def test_errors_become_text_and_exit_codes(
    error: BaseException,
    code: int,
    text: str,
    doctor_raises: Callable[[BaseException], None],
    capsys: Capture,
) -> None:
    doctor_raises(error)
    for words in (["doctor"], ["doctor", "--json"]):
        assert main(words) == code
        captured = capsys.readouterr()
        assert captured.out == "", "with --json too"
        assert captured.err == text


def test_verbose_shows_where(doctor_raises: Callable[[BaseException], None], capsys: Capture) -> None:
    doctor_raises(ConfigError("a"))
    assert main(["doctor", "--verbose"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("error: a\n")


def test_an_interrupted_run_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.setattr(commands, "_train", failing(KeyboardInterrupt()))
    words = ["train", "a study.toml", "--fresh", "--out", str(tmp_path)]
    assert main(words) == 130
    again = f"rivage train 'a study.toml' --out {tmp_path}"
    assert capsys.readouterr().err == f"error: interrupted; what was trained is kept. Resume with: {again}\n"


def test_json_is_one_object_on_stdout(capsys: Capture) -> None:
    assert main(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rivage"] == __version__
    assert captured.err == ""
