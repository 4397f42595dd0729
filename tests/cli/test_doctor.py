from __future__ import annotations

from pathlib import Path

import pytest

from rivage.cli.doctor import examine, extras, rows


def test_extras_are_read_from_the_metadata() -> None:
    found = extras(
        [
            "numpy>=2.0",
            "no-such-package-a>=2.9; extra == 'train'",
            'pytest>=8 ; extra == "testing"',
            "no-such-package-b[x]>1,<2; python_version > '3' and extra == \"train\"",
            "no-such-package-c; extra == 'of-another-issue'",
        ]
    )
    assert found == {
        "train": {"missing": ["no-such-package-a", "no-such-package-b"], "command": 'pip install "rivage[train]"'},
        "report": {"missing": [], "command": None},
        "privacy": {"missing": [], "command": None},
        "knn": {"missing": [], "command": None},
        "testing": {"missing": [], "command": None},
    }


def test_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIVAGE_DATA", raising=False)
    assert examine()["data"] == {"path": None, "exists": False}
    monkeypatch.setenv("RIVAGE_DATA", str(tmp_path))
    assert examine()["data"] == {"path": str(tmp_path), "exists": True}
    monkeypatch.setenv("RIVAGE_DATA", str(tmp_path / "gone"))
    cells = dict(rows(examine()))
    assert cells["RIVAGE_DATA"] == f"{tmp_path / 'gone'} (does not exist)"


def test_the_folder_is_tried_and_left_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert examine()["folder"] == {"path": str(tmp_path), "writable": True}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    found = examine()
    assert found["folder"]["writable"] is False
    assert "use --out" in dict(rows(found))["this folder"]


def test_what_is_missing_comes_with_its_command() -> None:
    found = examine()
    found["packages"]["torch"] = None
    found["extras"]["train"] = {"missing": ["torch"], "command": 'pip install "rivage[train]"'}
    cells = dict(rows(found))
    assert cells["torch"] == "not installed"
    assert cells["extra train"] == 'torch missing; install with: pip install "rivage[train]"'
    assert found["cores"] >= 1
