from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rivage.core.errors import ConfigError, DataError, StoreError
from rivage.core.store import load_tensors, save_tensors
from rivage.data.population import Schema
from rivage.learning import ModelBundle, Personal, Provenance, TaskSettings, make_task
from rivage.learning.params import to_numpy

SCHEMA = Schema(input_shape=(4,), target="class", num_classes=3, features=("a", "b", "c", "d"), classes=("x", "y", "z"))
SETTINGS = TaskSettings(model="mlp", options={"hidden": [5]})
TASK = make_task(SETTINGS, SCHEMA)
ORIGIN = Provenance(run="ab12", method="fedavg", seed=3, references=({"key": "mcmahan17", "year": 2017},))
ONE = np.ones(1, np.float32)


def vectors(count: int) -> np.ndarray:
    return np.stack([to_numpy(TASK.initial(seed)) for seed in range(count)])


def bundle_of(models, newcomer=None, **changes) -> ModelBundle:
    arguments = {"settings": SETTINGS, "task": TASK, "provenance": ORIGIN} | changes
    return ModelBundle.collect(models, newcomer=newcomer, **arguments)


def mixture() -> ModelBundle:
    """Three shared components with a mix per client, and one client with a vector of its own."""
    shared, own = vectors(4)[:3], vectors(4)[3:]
    mixes = {2: [0.2, 0.3, 0.5], 5: [0.0, 1.0, 0.0], 9: [0.5, 0.5, 0.0]}
    models = [(client, shared, np.array(mix, np.float32), 0.75) for client, mix in mixes.items()]
    return bundle_of([*models, (4, own, ONE, None)], (shared, np.full(3, 1 / 3, np.float32)))


def expected(parts: list[tuple[np.ndarray, float]], x: np.ndarray) -> np.ndarray:
    bound, total = TASK.bind(), 0.0
    for vector, share in parts:
        bound.load(torch.from_numpy(vector.copy()))
        total = total + share * bound.module(torch.from_numpy(x)).softmax(1).detach().numpy()
    return total


def test_equal_vectors_are_stored_once() -> None:
    one = vectors(1)
    bundle = bundle_of(((client, one.copy(), ONE, 0.5) for client in range(100)), (one, ONE))
    assert bundle.vectors.shape == (1, TASK.dimension)
    assert bundle.clients[99] == Personal((0,), (1.0,), 0.5)
    assert mixture().vectors.shape == (4, TASK.dimension)
    assert mixture().clients[5] == Personal((1,), (1.0,), 0.75)


def test_a_caller_may_reuse_its_memory() -> None:
    buffer, kept = np.empty((1, TASK.dimension), np.float32), vectors(3)

    def models():
        for client in range(3):
            buffer[:] = kept[client]
            yield client, buffer, ONE, None

    assert np.array_equal(bundle_of(models()).vectors, kept)


def test_predictions_mix_probabilities() -> None:
    bundle, x = mixture(), np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    rows = vectors(4)
    np.testing.assert_allclose(
        bundle.predictor(2)(x), expected([(rows[0], 0.2), (rows[1], 0.3), (rows[2], 0.5)], x), rtol=1e-5
    )
    np.testing.assert_allclose(bundle.predictor(4)(x), expected([(rows[3], 1.0)], x), rtol=1e-5)
    np.testing.assert_allclose(bundle.predictor()(x), expected([(row, 1 / 3) for row in rows[:3]], x), rtol=1e-5)
    assert bundle.predictor(2)(x[:0]).shape == (0, 3)
    assert bundle.predictor(2)(x).dtype == np.float32


def test_predictors_do_not_disturb_each_other() -> None:
    bundle, x = mixture(), np.ones((2, 4), np.float32)
    first = bundle.predictor(4)
    before = first(x)
    bundle.predictor(2)(x)
    assert np.array_equal(first(x), before)


def test_a_saved_bundle_is_the_same_bundle(tmp_path: Path) -> None:
    bundle, path = mixture(), tmp_path / "models.safetensors"
    bundle.save(path)
    again = ModelBundle.load(path)
    assert np.array_equal(again.vectors, bundle.vectors)
    for name in ("clients", "newcomer", "schema", "layout", "provenance", "settings"):
        assert getattr(again, name) == getattr(bundle, name)
    x = np.ones((2, 4), np.float32)
    assert np.array_equal(again.predictor(2)(x), bundle.predictor(2)(x))
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_precision_is_kept(tmp_path: Path) -> None:
    task = make_task(SETTINGS, SCHEMA, dtype=torch.float64)
    row = to_numpy(task.initial(0))[None]
    bundle_of([(0, row, ONE, None)], task=task).save(tmp_path / "m")
    again = ModelBundle.load(tmp_path / "m")
    assert again.task().dtype == torch.float64
    assert again.predictor(0)(np.ones((1, 4))).dtype == np.float64


def test_a_bundle_of_nobody(tmp_path: Path) -> None:
    bundle_of([]).save(tmp_path / "m")
    again = ModelBundle.load(tmp_path / "m")
    assert again.clients == {}
    assert again.vectors.shape == (0, TASK.dimension)
    with pytest.raises(DataError, match=r"method fedavg: the bundle has no model for a newcomer\. It has 0"):
        again.predictor()
    with pytest.raises(DataError, match="no model for client 7"):
        again.predictor(7)


class Net(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)


def test_a_file_does_not_decide_what_is_imported(tmp_path: Path) -> None:
    settings = TaskSettings(model="no_such_package:Net")
    task = make_task(settings, SCHEMA, model=Net)
    bundle = bundle_of([(0, to_numpy(task.initial(0))[None], ONE, None)], settings=settings, task=task)
    bundle.save(tmp_path / "m")
    again = ModelBundle.load(tmp_path / "m")
    with pytest.raises(ConfigError, match=r"names the model \"no_such_package:Net\".*pass it as model"):
        again.predictor(0)
    assert again.predictor(0, Net)(np.ones((2, 4), np.float32)).shape == (2, 3)


def test_a_model_that_changed_is_refused() -> None:
    with pytest.raises(ConfigError, match="other parameters than the bundle"):
        bundle_of([], settings=TaskSettings(model="linear")).task()


def _drop(tensors, metadata):
    del tensors["mix"]


def _other_format(tensors, metadata):
    metadata["format"] = "other/1"


def _no_json(tensors, metadata):
    metadata["bundle"] = "{"


def _narrow(tensors, metadata):
    tensors["vectors"] = tensors["vectors"][:, 1:].copy()


def _integers(tensors, metadata):
    tensors["vectors"] = tensors["vectors"].astype(np.int32)


def _beyond(tensors, metadata):
    tensors["rows"][0] = 99


def _negative_row(tensors, metadata):
    tensors["rows"][0] = -1


def _unbalanced(tensors, metadata):
    tensors["mix"][0] = 5


def _not_a_number(tensors, metadata):
    tensors["mix"][0] = np.nan


def _groups(tensors, metadata):
    tensors["groups"][0] += 1


def _lost_client(tensors, metadata):
    tensors["clients"] = tensors["clients"][1:]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_drop, "mix"),
        (_other_format, 'format is "other/1"'),
        (_no_json, "Expecting"),
        (_narrow, "vectors are float32 of shape"),
        (_integers, "vectors are int32"),
        (_beyond, "rows 0 to 99 of 4 vectors"),
        (_negative_row, "rows -1 to"),
        (_unbalanced, "the weights of client -1 sum to"),
        (_not_a_number, "sum to nan"),
        (_groups, "weights for"),
        (_lost_client, "longer than argument 1"),
    ],
)
def test_files_that_are_no_bundle_are_refused(tmp_path: Path, spoil, words: str) -> None:
    path = tmp_path / "models.safetensors"
    mixture().save(path)
    tensors, metadata = load_tensors(path)
    spoil(tensors, metadata)
    save_tensors(path, tensors, metadata)
    with pytest.raises(StoreError, match="is not a model bundle") as caught:
        ModelBundle.load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "models.safetensors"
    mixture().save(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="checksum"):
        ModelBundle.load(path)
    with pytest.raises(StoreError, match="cannot be read"):
        ModelBundle.load(tmp_path / "none")
