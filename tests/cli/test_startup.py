"""What fresh processes load. Times are the business of ``benchmarks/startup.py``."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "matplotlib", "networkx"}


def loaded(program: str) -> set[str]:
    probe = f"{program}\nimport sys\nprint('loaded', *sys.modules)"
    run = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    return set(run.stdout.splitlines()[-1].split()[1:])


def test_import_rivage_loads_next_to_nothing() -> None:
    modules = loaded("import rivage")
    assert not modules & (HEAVY | {"numpy", "pydantic", "pyarrow", "scipy", "rich", "cyclopts"})


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["play", "--help"], ["doctor"]])
def test_light_commands_load_nothing_heavy(words: list[str]) -> None:
    modules = loaded(f"from rivage.cli.app import main\nassert main({words}) == 0")
    assert "rivage.cli.app" in modules
    assert not modules & (HEAVY | {"pydantic", "pyarrow", "scipy", "sklearn", "numba"})


@pytest.mark.parametrize("module", ["rivage.studies.settings", "rivage.studies.play_settings", "rivage.core.settings"])
def test_the_schema_is_imported_without_torch_and_pydantic(module: str) -> None:
    modules = loaded(f"import {module}")
    assert module in modules
    assert not modules & (HEAVY | {"pydantic", "pyarrow", "sklearn"})


def test_the_command_is_installed() -> None:
    code = "from importlib.metadata import entry_points as e; print(e(group='console_scripts', name='rivage'))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "rivage.cli.app:main" in run.stdout


@pytest.mark.process
def test_a_reader_that_goes_away_is_no_fault() -> None:
    program = "import sys; from rivage.cli.app import main; sys.exit(main(['doctor', '--json']))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait() == 1
    assert errors == b""
    process.stderr.close()
