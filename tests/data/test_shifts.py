"""Shifts: pure in (seed, client), same targets or same inputs, exact shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.dataset import Arrays
from rivage.data.population import Schema
from rivage.data.shifts import SHIFTS, ConceptShift, FeatureShift

STREAMS = Streams(5)


def vectors(features: int = 4, classes: int = 10) -> Arrays:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, features)).astype(np.float32)
    return Arrays(x, np.arange(30) % classes, Schema(input_shape=(features,), target="class", num_classes=classes))


def images() -> Arrays:
    x = np.random.default_rng(0).random((3, 1, 9, 9)).astype(np.float32)
    return Arrays(x, np.arange(3), Schema(input_shape=(1, 9, 9), target="class", num_classes=3))


@pytest.mark.parametrize("features", [1, 4, 5])
def test_a_rotation_of_vectors_keeps_norms_and_targets(features: int) -> None:
    before = vectors(features)
    after = FeatureShift(rotation=90.0).apply(before, 3, 10, STREAMS)
    assert after.y is before.y
    assert np.allclose(np.linalg.norm(after.x, axis=1), np.linalg.norm(before.x, axis=1), rtol=1e-5)
    assert (features == 1) == np.allclose(after.x, before.x)
    if features == 5:
        assert np.allclose(after.x[:, 4], before.x[:, 4])  # the odd one out has no partner


def test_a_rotation_of_vectors_by_hand() -> None:
    """All pairs of features turn by one and the same angle."""
    before, after = vectors().x, FeatureShift(rotation=180.0).apply(vectors(), 1, 10, STREAMS).x
    angles = [np.angle((after[:, i] + 1j * after[:, i + 1]) / (before[:, i] + 1j * before[:, i + 1])) for i in (0, 2)]
    assert np.ptp(np.concatenate(angles)) < 1e-5
    assert abs(angles[0][0]) > 0.01


def test_images_turn_about_their_centre() -> None:
    before = images()
    after = FeatureShift(rotation=45.0).apply(before, 2, 10, STREAMS)
    assert after.x.shape == before.x.shape
    assert after.x.dtype == np.float32
    assert np.allclose(after.x[:, 0, 4, 4], before.x[:, 0, 4, 4], atol=1e-6)
    assert not np.allclose(after.x, before.x, atol=0.01)


def test_scale_is_one_factor_per_client() -> None:
    shift = FeatureShift(scale=0.7)
    factors = []
    for client in range(200):
        ratio = shift.apply(vectors(), client, 200, STREAMS).x / vectors().x
        assert np.ptp(ratio) < 1e-5
        factors.append(np.log(ratio[0, 0]))
    assert np.abs(factors).max() <= 0.7 + 1e-6
    assert abs(np.mean(factors)) < 3 * 0.7 / np.sqrt(3 * 200)  # 3 standard errors of a uniform mean


def test_noise_level_is_bounded_and_differs() -> None:
    levels = [np.std(FeatureShift(noise=0.5).apply(vectors(400), c, 9, STREAMS).x - vectors(400).x) for c in range(9)]
    assert max(levels) < 0.52
    assert np.ptp(levels) > 0.1


def test_no_shift_changes_nothing() -> None:
    assert np.array_equal(FeatureShift().apply(vectors(), 0, 3, STREAMS).x, vectors().x)


@given(client=st.integers(0, 50), size=st.integers(51, 90))
def test_a_client_is_shifted_alike_whoever_else_is_there(client: int, size: int) -> None:
    shift = FeatureShift(30.0, 0.3, 0.1)
    one, other = shift.apply(vectors(), client, 51, STREAMS), shift.apply(vectors(), client, size, STREAMS)
    assert np.array_equal(one.x, other.x)
    assert not np.array_equal(one.x, shift.apply(vectors(), client + 1, size, STREAMS).x)
    assert not np.array_equal(one.x, shift.apply(vectors(), client, size, Streams(6)).x)


@pytest.mark.parametrize(("share", "shifted"), [(0.0, 0), (0.5, 10), (0.3, 6), (1.0, 20)])
def test_the_share_is_exact_and_the_offset_modular(share: float, shifted: int) -> None:
    before = vectors()
    after = [ConceptShift(share, offset=3).apply(before, client, 20, STREAMS) for client in range(20)]
    changed = [records.y for records in after if not np.array_equal(records.y, before.y)]
    assert len(changed) == shifted
    assert all(np.array_equal(y, (before.y + 3) % 10) for y in changed)
    assert all(np.array_equal(records.x, before.x) for records in after)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_relabelling_leaves_no_class_in_place(classes: int) -> None:
    before = vectors(classes=classes)
    relabelled = [ConceptShift(1.0).apply(before, client, 40, STREAMS).y for client in range(40)]
    for y in relabelled:
        assert (y != before.y).all()
        names = {(int(old), int(new)) for old, new in zip(before.y, y, strict=True)}
        assert len(names) == classes == len({new for _, new in names})
    assert classes == 2 or len({tuple(y) for y in relabelled}) > 1


def test_shifts_that_do_not_fit_the_data() -> None:
    tokens = Arrays(
        np.zeros((2, 3), np.int64),
        np.zeros((2, 3), np.int64),
        Schema(input_shape=(3,), target="tokens", num_classes=4),
    )
    with pytest.raises(ConfigError, match=r"\[shift\]: tokens cannot be turned"):
        FeatureShift(scale=1.0).apply(tokens, 0, 1, STREAMS)
    with pytest.raises(ConfigError, match=r"\[shift\]: a concept shift relabels classes"):
        ConceptShift().apply(tokens, 0, 1, STREAMS)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: FeatureShift(rotation=181.0), "at most 180 degrees"),
        (lambda: FeatureShift(noise=-0.1), "noise is -0.1"),
        (lambda: ConceptShift(share=1.5), "share is 1.5"),
    ],
)
def test_settings_out_of_range(build: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build()  # type: ignore[operator]


def test_registered_kinds() -> None:
    assert SHIFTS.get("concept") is ConceptShift
    assert SHIFTS.get("features") is FeatureShift
