from __future__ import annotations

from pathlib import Path

import pytest

from rivage.federated import calibration
from rivage.federated.calibration import DEFAULT_TILE_BYTES, best_tile_bytes, tile_bytes


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RIVAGE_TILE_BYTES", raising=False)
    tile_bytes.cache_clear()
    return tmp_path / "rivage" / "machine.json"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes that were measured; 8 MiB is the fastest."""
    asked: list[int] = []

    def seconds(size: int) -> float:
        asked.append(size)
        return 0.5 if size == 8 << 20 else 1.0

    monkeypatch.setattr(calibration, "_seconds", seconds)
    return asked


def test_only_a_clear_difference_moves_the_default() -> None:
    assert best_tile_bytes({1 << 20: 0.95, DEFAULT_TILE_BYTES: 1.0}) == DEFAULT_TILE_BYTES
    assert best_tile_bytes({1 << 20: 0.8, 2 << 20: 0.7, DEFAULT_TILE_BYTES: 1.0}) == 2 << 20


def test_a_machine_is_measured_once(measured: list[int], empty_cache: Path) -> None:
    assert tile_bytes() == 8 << 20
    assert empty_cache.exists()
    tile_bytes.cache_clear()
    count = len(measured)
    assert tile_bytes() == 8 << 20
    assert len(measured) == count


@pytest.mark.parametrize("content", ["", "[]", "{", '{"other machine": 1}'])
def test_a_useless_cache_is_measured_over(measured: list[int], empty_cache: Path, content: str) -> None:
    empty_cache.parent.mkdir()
    empty_cache.write_text(content)
    assert tile_bytes() == 8 << 20
    assert measured


def test_a_cache_that_cannot_be_written_stops_nothing(measured: list[int], empty_cache: Path) -> None:
    empty_cache.parent.write_text("a file where the folder should be")
    assert tile_bytes() == 8 << 20


def test_the_environment_overrides(measured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVAGE_TILE_BYTES", "12345")
    assert tile_bytes() == 12345
    assert not measured


def test_the_real_measurement_gives_a_candidate() -> None:
    assert tile_bytes() in calibration._CANDIDATES
