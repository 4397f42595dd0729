"""The federated treatment: equal to pooled statistics, and nothing but summaries in the messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import DataError
from rivage.core.messages import decode, encode
from rivage.data.dataset import Columns
from rivage.data.treatment import decode_words, treat


def text(*values: object) -> np.ndarray:
    column = np.empty(len(values), object)
    column[:] = values
    return column


COLUMNS = Columns(
    columns={
        "age": np.array([30.0, 40.0, np.nan, 60.0, 70.0, 80.0]),
        "sex": text("f", "m", None, "m", "f", "x"),
        "ward": text(1.0, 2.0, "2", "east", 1.0, "1"),
        "same": np.full(6, 7.0),
        "gone": np.full(6, np.nan),
    },
    target=text("no", "yes", "no", "no", "yes", "maybe"),
    target_name="ill",
    target_type="class",
)
ROWS = [np.array([0, 1, 2]), np.array([3, 4, 5])]
TRAIN = [np.array([0, 1, 2]), np.array([3, 4])]


def test_by_hand() -> None:
    """Row 5 is no training record: its age does not count, its sex is unknown, but its class has a name."""
    treated = treat(COLUMNS, ROWS, TRAIN, "s")
    schema, x = treated.records.schema, treated.records.x
    assert schema.features == ("age", "sex=f", "sex=m", "ward=1", "ward=2", "ward=east", "same", "gone")
    assert schema.classes == ("maybe", "no", "yes")
    assert treated.records.y.tolist() == [1, 2, 1, 1, 2, 0]
    ages = np.array([30.0, 40.0, 60.0, 70.0])
    age = (np.array([30.0, 40.0, ages.mean(), 60.0, 70.0, 80.0]) - ages.mean()) / ages.std()
    assert np.allclose(x[:, 0], age, rtol=1e-6)
    assert x[:, 1].tolist() == [1, 0, 0, 0, 1, 0]
    assert x[:, 2].tolist() == [0, 1, 0, 1, 0, 0]
    assert x[:, 3:6].argmax(axis=1).tolist() == [0, 1, 1, 2, 0, 0]
    assert (x[:, 6:] == 0).all()
    assert x.dtype == np.float32


def test_notes_tell_what_became_of_the_columns() -> None:
    notes = treat(COLUMNS, ROWS, TRAIN, "s").notes
    assert notes["columns"] == {
        "age": "number, mean 50, standard deviation 15.81",
        "sex": "category: f, m",
        "ward": "category (text in some tables, numbers in others): 1, 2, east",
        "same": "number, mean 7, standard deviation 1",
        "gone": "number, always missing",
    }
    assert notes["target"] == {"name": "ill", "type": "class", "classes": ["maybe", "no", "yes"]}


def test_messages_are_summaries() -> None:
    setup = treat(COLUMNS, ROWS, TRAIN, "s").setup
    assert [(message.kind, message.sender, message.receiver) for message in setup] == [
        (kind, *pair)
        for kind in ("types", "vocabulary", "statistics", "statistics")
        for pair in (
            ("client:0", "server"),
            ("client:1", "server"),
            ("server", "client:0"),
            ("server", "client:1"),
        )
    ]
    assert all(message.round == -1 for message in setup)
    types, words, first, second = (setup[start : start + 4] for start in (0, 4, 8, 12))
    assert types[0].payload["text"].tolist() == [False, True, True, False, False]
    assert decode_words(words[0].payload["sex"]) == ("f", "m")
    assert decode_words(words[1].payload["ward"]) == ("1", "east")
    assert decode_words(words[2].payload["ward"]) == ("1", "2", "east")
    assert decode_words(words[3].payload["ill"]) == ("maybe", "no", "yes")
    assert first[0].payload["count"].tolist() == [2, 3, 0]
    assert first[0].payload["sum"].tolist() == [70, 21, 0]
    assert first[2].payload["mean"].tolist() == [50, 7, 0]
    assert second[1].payload["squares"].tolist() == [500, 0, 0]
    assert second[2].payload is second[3].payload  # an answer is one object for all


def test_messages_can_be_sent() -> None:
    for message in treat(COLUMNS, ROWS, TRAIN, "s").setup:
        sent = decode(encode(message.payload))
        assert all(np.array_equal(sent[name], array) for name, array in message.payload.items())
        assert message.nbytes == len(encode(message.payload))


def test_a_real_target_is_scaled_like_a_column() -> None:
    y = np.array([1e4, 2e4, 3e4, 5e4, 9e4, 1e9])
    treated = treat(Columns(columns={"a": y}, target=y, target_name="cost", target_type="real"), ROWS, TRAIN, "s")
    seen = y[:5]
    assert np.allclose(treated.records.y, (y - seen.mean()) / seen.std(), rtol=1e-6)
    assert treated.notes["target"] == {
        "name": "cost",
        "type": "real",
        "mean": pytest.approx(seen.mean()),
        "deviation": pytest.approx(seen.std()),
    }
    assert [message.kind for message in treated.setup[::4]] == ["types", "statistics", "statistics"]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    location=st.sampled_from([0.0, 1.0, -1e3, 1e6]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_federated_sums_equal_pooled_statistics(sizes: list[int], location: float, seed: int) -> None:
    """Whatever the split, and however far the column is from 0: pooled NumPy to 1e-10."""
    rng = np.random.default_rng(seed)
    column = location + rng.standard_normal(sum(sizes))
    column[rng.random(len(column)) < 0.2] = np.nan
    rows = np.split(rng.permutation(len(column)), np.cumsum(sizes)[:-1])
    columns = Columns(
        columns={"a": column}, target=np.arange(len(column)) % 2 * 1.0, target_name="y", target_type="class"
    )
    setup = treat(columns, rows, rows, "s").setup
    mean, deviation = (m.payload for m in (setup[-2 * len(sizes) - 1], setup[-1]))
    if np.isfinite(column).sum() > 1:
        assert mean["mean"][0] == pytest.approx(np.nanmean(column), rel=1e-10, abs=1e-10)
        assert deviation["deviation"][0] == pytest.approx(np.nanstd(column), rel=1e-10)


@given(st.permutations(range(6)))
def test_the_result_does_not_depend_on_who_holds_what(order: list[int]) -> None:
    every = np.array(order)
    one = treat(COLUMNS, [every], [every], "s").records
    three = treat(COLUMNS, np.split(every, 3), np.split(every, 3), "s").records
    assert np.allclose(one.x, three.x, atol=1e-6)
    assert np.array_equal(one.y, three.y)
    assert one.schema == three.schema


def test_classes_that_are_numbers_count_up() -> None:
    target = np.array([10.0, 9.0, 2.0, 10.0, 2.0, 9.0])
    columns = Columns(columns={"a": target}, target=target, target_name="t", target_type="class")
    treated = treat(columns, ROWS, TRAIN, "s")
    assert treated.records.schema.classes == ("2", "9", "10")
    assert treated.records.y.tolist() == [2, 1, 0, 2, 0, 1]


def test_long_vocabularies_are_cut_in_the_notes() -> None:
    words = text(*(f"w{number:02}" for number in range(12)))
    columns = Columns(columns={"a": words}, target=np.arange(12) % 2 * 1.0, target_name="t", target_type="class")
    notes = treat(columns, [np.arange(12)], [np.arange(12)], "s").notes
    assert notes["columns"]["a"] == "category: w00, w01, w02, w03, w04, w05, w06, w07, … (12)"


@pytest.mark.parametrize("columns", [{}, {"a": text(None, None)}])
def test_nothing_to_learn_from(columns: dict[str, np.ndarray]) -> None:
    empty = Columns(columns=columns, target=np.array([0.0, 1.0]), target_name="t", target_type="class")
    with pytest.raises(DataError, match="s: no column is left to learn from"):
        treat(empty, [np.arange(2)], [np.arange(2)], "s")
