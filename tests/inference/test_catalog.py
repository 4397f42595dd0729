"""Catalogs: files, those that come with rivage, hardware, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rivage.core.errors import ConfigError
from rivage.inference.catalog import BUILT_IN, Catalog, Model, load_catalog

MODEL = {"name": "s", "task": "see", "accuracy": 0.5, "size_mb": 10, "delay_ms": 20}
TEXT = """
[[models]]
name = "s"
task = "see"
accuracy = 0.5
size_mb = 10
delay_ms = { cpu = 20, gpu = 4 }
[[models]]
name = "h"
task = "hear"
accuracy = 1
size_mb = { cpu = 3 }
delay_ms = 0
throughput_rps = { cpu = 7 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(TEXT)
    return tmp_path / "mine.toml"


def test_a_file(file: Path) -> None:
    catalog = load_catalog(file)
    assert (catalog.name, catalog.tasks, catalog.hardware) == ("mine", ("see", "hear"), ("cpu", "gpu"))
    see, hear = catalog.models
    assert (see.size("cpu"), see.delay("cpu"), see.throughput("cpu")) == (10, 20, 50)
    assert (see.size("gpu"), see.delay("gpu"), see.throughput("gpu")) == (10, 4, 250)
    assert (see.size("tpu"), see.delay("tpu"), see.throughput("tpu")) == (math.inf, None, None)
    assert (hear.size("cpu"), hear.throughput("cpu")) == (3, 7)
    assert hear.size("gpu") == math.inf
    assert hear.throughput("gpu") == math.inf, "a delay of 0 bounds nothing"
    assert catalog.unknown("gpu") == ["h"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_those_that_come_with_rivage(name: str) -> None:
    catalog = load_catalog(name)
    assert catalog.name == name
    assert catalog.source, "figures have a source"
    for model in catalog.models:
        assert any(math.isfinite(model.size(each)) for each in catalog.hardware or ("any",))
    for task in catalog.tasks:
        ladder = sorted((m for m in catalog.models if m.task == task), key=lambda m: m.accuracy)
        assert len(ladder) > 1, "there is a choice"


def test_the_detector_of_the_publication_says_what_was_not_checked() -> None:
    catalog = load_catalog("yolov4-coco")
    best = max(catalog.models, key=lambda model: model.accuracy)
    assert best.accuracy == pytest.approx(0.657)
    assert catalog.note


def test_copies_are_tasks_of_their_own(file: Path) -> None:
    catalog = load_catalog(file)
    assert catalog.copies(1) is catalog
    twice = catalog.copies(2)
    assert [model.name for model in twice.models] == ["s 1", "h 1", "s 2", "h 2"]
    assert twice.tasks == ("see 1", "hear 1", "see 2", "hear 2")
    assert twice.models[2].delay("gpu") == 4
    with pytest.raises(ConfigError, match="copies is 0"):
        catalog.copies(0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"accuracy": 62.8}, "accuracy is 62.8. Give a share in [0, 1]: 62.8 % is 0.628."),
        ({"accuracy": math.nan}, "accuracy is nan"),
        ({"size_mb": -1}, "size_mb is -1. Give a number greater than 0.0."),
        ({"size_mb": {"cpu": 0}}, "size_mb.cpu is 0"),
        ({"size_mb": math.inf}, "size_mb is inf"),
        ({"delay_ms": -0.1}, "delay_ms is -0.1"),
        ({"delay_ms": {"cpu": math.nan}}, "delay_ms.cpu is nan"),
        ({"throughput_rps": 0}, "throughput_rps is 0"),
        ({"name": " "}, 'model " ", task "see". Name both.'),
        ({"task": ""}, 'model "s", task "". Name both.'),
        ({"size_mb": {}}, "size_mb names no hardware"),
    ],
)
def test_a_faulty_model(change: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Model(**(MODEL | change))  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_all_faults_of_a_model_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Model(**(MODEL | {"accuracy": 40, "size_mb": {"a": -1, "b": 0}, "delay_ms": -3}))  # type: ignore[arg-type]
    assert [line.strip().split()[0] for line in str(caught.value).splitlines()] == [
        "4",
        "accuracy",
        "size_mb.a",
        "size_mb.b",
        "delay_ms",
    ]


def test_names_are_all_different() -> None:
    with pytest.raises(ConfigError, match='several models are called "s"'):
        Catalog(models=(Model(**MODEL), Model(**(MODEL | {"task": "hear"}))))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"there is no model\. Give at least one"):
        Catalog(models=())


def test_a_catalog_that_is_nowhere() -> None:
    with pytest.raises(ConfigError, match=r'there is no catalog "yolo4-coco"\. Did you mean "yolov4-coco"'):
        load_catalog("yolo4-coco")


def test_faults_of_a_file_name_it_and_the_model(file: Path) -> None:
    file.write_text(TEXT.replace("accuracy = 1", "accuracy = 100").replace("size_mb = 10", "size_mb = -10"))
    with pytest.raises(ConfigError) as caught:
        load_catalog(file)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{file}: 2 problems"
    assert lines == [
        "  [[models]] 1: size_mb is -10.0. Give a number greater than 0.0.",
        "  [[models]] 2: accuracy is 100. Give a share in [0, 1]: 62.8 % is 0.628.",
    ]
