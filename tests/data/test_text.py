"""Shakespeare by role: splits by line, windows, vocabulary."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, DataError
from rivage.data.build import build_population
from rivage.data.text import VOCABULARY, Shakespeare, encode_text, lines_by_role, windows

PLAY = "A:\nOne\ntwo\n\nB:\nthree\n\n\nA:\nfour.\n\nC:\n\nB:\nfive\nsix\n"


def spoken(tokens: np.ndarray) -> str:
    return "".join(VOCABULARY[token] for token in tokens.ravel())


def test_lines_by_role() -> None:
    assert lines_by_role(PLAY) == {"A": ["One", "two", "four."], "B": ["three", "five", "six"]}


@given(st.text(string.printable, max_size=200))
def test_encoding_is_one_to_one(text: str) -> None:
    assert spoken(encode_text(text)) == text


def test_vocabulary_is_fixed() -> None:
    assert len(VOCABULARY) == 100
    assert encode_text("09az ").tolist() == [0, 9, 10, 35, 94]


@pytest.mark.parametrize("text", ["ab\x00", "abé", "ab€", "ab\U0001f600"])
def test_other_characters_are_named(text: str) -> None:
    with pytest.raises(DataError, match=r"position 2: character .* is not printable ASCII"):
        encode_text(text)


@given(size=st.integers(0, 60), length=st.integers(1, 10), stride=st.integers(1, 12))
def test_windows(size: int, length: int, stride: int) -> None:
    x, y = windows(np.arange(size), length, stride)
    starts = list(range(0, size - length, stride))
    assert x.shape == y.shape == (len(starts), length)
    assert x[:, 0].tolist() == starts
    assert np.array_equal(y, x + 1)


def test_roles_of_the_corpus(data_root: Path) -> None:
    for least, roles in ((500, 181), (1_000, 141), (2_000, 99), (5_000, 64), (10_000, 36)):
        assert len(Shakespeare(min_characters=least).load(0).names) == roles


def test_a_role_is_split_by_lines(data_root: Path) -> None:
    text = (data_root / "tiny-shakespeare" / "input.txt").read_text()
    lines = lines_by_role(text)["ROMEO"]
    data = Shakespeare(min_characters=10_000).load(0)
    own = data.clients == data.names.index("ROMEO")
    train, test = (data.records.x[own & (data.test == which)] for which in (False, True))
    cut = int(0.8 * len(lines))
    assert " ".join(lines[:cut]).startswith(spoken(train))
    assert " ".join(lines[cut:]).startswith(spoken(test))
    assert len(train) == (len(" ".join(lines[:cut])) - 1) // 80
    assert np.array_equal(data.records.x[own][0][1:], data.records.y[own][0][:-1])


def test_overlapping_windows_count_characters(data_root: Path) -> None:
    """With stride 1 a text of n characters gives n − 80 windows, as in the published experiments."""
    text = (data_root / "tiny-shakespeare" / "input.txt").read_text()
    lines = lines_by_role(text)["GLOUCESTER"]
    data = Shakespeare(min_characters=37_000, stride=1).load(0)
    assert data.names == ("GLOUCESTER",)
    assert np.count_nonzero(~data.test) == len(" ".join(lines[: int(0.8 * len(lines))])) - 80


def test_as_a_population(data_root: Path) -> None:
    held = build_population(Shakespeare(), seed=0)
    assert held.size == 141
    assert held.schema.target == "tokens"
    assert held.schema.num_classes == 100
    assert held.client(3).train.y.dtype == np.int64
    assert held.client(3).train.index.max() < held.client(3).validation.index.min()
    assert held.notes["roles_below_min_characters"] == 158


def test_roles_without_a_training_window_are_skipped(data_root: Path) -> None:
    held = build_population(Shakespeare(min_characters=0), seed=0)
    assert held.size + held.notes["skipped_clients"] == 299


def test_refusals(data_root: Path) -> None:
    with pytest.raises(DataError, match=r"no role speaks 100000 characters\. The largest speaks 37615"):
        Shakespeare(min_characters=100_000).load(0)
    for settings in ({"min_characters": -1}, {"length": 0}, {"stride": 0}):
        with pytest.raises(ConfigError, match="Give a number of at least"):
            Shakespeare(**settings)
