"""Shakespeare by speaking role: next-character prediction.

One client per role. The first 80 % of a role's lines are for training, the last 20 % (at least one line)
for test; lines are joined with spaces and cut into windows of 80 characters that predict the 80 characters
one further.

The corpus is "tiny Shakespeare", about a quarter of the one in LEAF: figures published for LEAF do not
compare. Role names are not qualified by play, so that ``First Citizen`` mixes several plays.

References:
    McMahan, Moore, Ramage, Hampson, Agüera y Arcas. AISTATS 2017, arXiv 1602.05629 (one client per speaking
    role).

    Caldas et al. LEAF: a benchmark for federated settings. arXiv 1812.01097 (windows of 80 characters).
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.core.errors import DataError, require
from rivage.data.dataset import Arrays, Dataset
from rivage.data.files import Publication
from rivage.data.population import Schema

__all__ = ["VOCABULARY", "Shakespeare", "encode_text", "lines_by_role", "windows"]

VOCABULARY = string.printable
"""The symbols, by number: the 100 printable ASCII characters, the same whatever text is read."""

_TRAIN_SHARE = 0.8

_PUBLICATION = Publication(
    "shakespeare",
    "tiny-shakespeare",
    "github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt",
    {"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
)


@dataclass(frozen=True, slots=True)
class Shakespeare:
    """Speaking roles as clients.

    Args:
        folder: where ``input.txt`` is; left out, ``tiny-shakespeare`` below RIVAGE_DATA.
        min_characters: roles that speak less are left out, >= 0. With 1,000 there are 141 roles, with
            10,000 36.
        length: characters of a window, >= 1.
        stride: from one window to the next, >= 1. The default does not overlap; 1 gives as many windows as
            characters (`length` times the memory of the text), as in published experiments.
    """

    folder: Path | None = None
    min_characters: int = 1_000
    length: int = 80
    stride: int = 80

    def __post_init__(self) -> None:
        require(self.min_characters, "min_characters", least=0)
        require(self.length, "length", least=1)
        require(self.stride, "stride", least=1)

    def load(self, seed: int) -> Dataset:
        """Read the corpus; ``seed`` is not used.

        Raises:
            DataError: if the file is missing or altered, or no role speaks enough.
        """
        text = _PUBLICATION.read(self.folder, "input.txt").decode("ascii")
        roles = lines_by_role(text)
        kept = {role: lines for role, lines in roles.items() if len(" ".join(lines)) >= self.min_characters}
        if not kept:
            raise DataError(
                f"no role speaks {self.min_characters} characters",
                where="[data] min_characters",
                mend=f"The largest speaks {max(len(' '.join(lines)) for lines in roles.values())}.",
            )
        parts = [part for lines in kept.values() for part in self._split(lines)]
        x, y = (np.concatenate(side) for side in zip(*parts, strict=True))
        sizes = np.array([len(inputs) for inputs, _ in parts])
        schema = Schema(input_shape=(self.length,), target="tokens", num_classes=len(VOCABULARY))
        return Dataset(
            source="shakespeare",
            records=Arrays(x, y, schema),
            clients=np.repeat(np.arange(len(kept)), sizes[0::2] + sizes[1::2]),
            names=tuple(kept),
            test=np.repeat(np.arange(len(parts)) % 2 == 1, sizes),
            ordered=True,
            notes={"roles_below_min_characters": len(roles) - len(kept)},
        )

    def _split(self, lines: list[str]) -> tuple[tuple[Int64[ndarray, "n length"], Int64[ndarray, "n length"]], ...]:
        """Windows of the first 80 % of the lines, and of the rest, which is at least one line."""
        cut = min(int(_TRAIN_SHARE * len(lines)), len(lines) - 1)
        return tuple(
            windows(encode_text(" ".join(part)), self.length, self.stride) for part in (lines[:cut], lines[cut:])
        )


def lines_by_role(text: str) -> dict[str, list[str]]:
    """What each role says, in the order of first appearance; roles without a word are left out.

    Speeches are separated by empty lines; the first line of a speech is the role and a colon.
    """
    roles: dict[str, list[str]] = {}
    for speech in re.split(r"\n{2,}", text.strip("\n")):
        role, *lines = speech.split("\n")
        if lines:
            roles.setdefault(role.removesuffix(":"), []).extend(lines)
    return roles


def encode_text(text: str) -> Int64[ndarray, "characters"]:
    """Number of each character in the vocabulary. O(length).

    Raises:
        DataError: naming a character that is not in it.
    """
    codes = np.full(128, -1, np.int64)
    codes[np.frombuffer(VOCABULARY.encode("ascii"), np.uint8)] = np.arange(len(VOCABULARY))
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    result: Int64[ndarray, "characters"] = codes[np.minimum(points, 127)]
    unknown = np.flatnonzero((result < 0) | (points > 127))
    if unknown.size:
        raise DataError(
            f"character {text[unknown[0]]!r} is not printable ASCII",
            where=f"position {unknown[0]}",
            mend="Replace it.",
        )
    return result


def windows(
    tokens: Int64[ndarray, "characters"], length: int, stride: int
) -> tuple[Int64[ndarray, "n length"], Int64[ndarray, "n length"]]:
    """Windows and, for each, the same window one character further; none if the text is not longer than one."""
    if len(tokens) <= length:
        empty = np.empty((0, length), np.int64)
        return empty, empty
    views = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[::stride]
    return views[:, :-1], views[:, 1:]
