"""Images in MNIST's format, from files the user has.

Nothing is shipped and nothing is downloaded; MNIST's own files are checked against their known hashes.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError
from rivage.data.dataset import Dataset, dataset_of
from rivage.data.files import Publication

__all__ = ["MNIST", "read_idx"]


_MNIST = Publication(
    "mnist",
    "mnist-t10k",
    "the MNIST database (LeCun, Cortes, Burges), test part, for example github.com/unixpickle/mnistlite, data/",
    {  # of the uncompressed content: copies differ in their gzip header
        "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)


@dataclass(frozen=True, slots=True)
class MNIST:
    """Images and labels in MNIST's IDX format; pixels in [0, 1], shape (1, height, width).

    By default the 10,000 images of MNIST's test part, checked against their hash. Only this part is read, so
    results do not compare with those of the 60,000 training images.

    Args:
        folder: where the files are; left out, ``mnist-t10k`` below RIVAGE_DATA.
        images: another file of images in the folder (Fashion-MNIST, the training part), gzipped or not.
        labels: the file of its labels; give both or none.
    """

    folder: Path | None = None
    images: str | None = None
    labels: str | None = None

    def __post_init__(self) -> None:
        if (self.images is None) != (self.labels is None):
            raise ConfigError("images and labels belong together", mend="Name both files, or none.")

    def load(self, seed: int) -> Dataset:
        """Read the files; ``seed`` is not used.

        Raises:
            DataError: if a file is missing, altered, or not in IDX format.
        """
        known_images, known_labels = _MNIST.hashes
        images = self._read(self.images, known_images, dimensions=3)
        labels = self._read(self.labels, known_labels, dimensions=1)
        x = (images / np.float32(255)).astype(np.float32)[:, None]
        return dataset_of(x, labels, source="mnist")

    def _read(self, name: str | None, known: str, dimensions: int) -> UInt8[ndarray, "..."]:
        if name is None:
            path = _MNIST.locate(self.folder) / known
        else:
            path = (self.folder or Path()) / name
            if not path.is_file():
                raise DataError(f'there is no file "{path}"', where="[data]", mend="Check folder and file name.")
        content = _unzipped(path)
        if name is None:
            _MNIST.verify(known, content, path)
        return read_idx(content, dimensions, where=str(path))


def _unzipped(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise DataError(f"the gzip file is broken ({error})", where=str(path), mend="Get it again.") from error


def read_idx(content: bytes, dimensions: int, *, where: str) -> UInt8[ndarray, "..."]:
    """An array of bytes in IDX format: magic number, big-endian sizes, values.

    Raises:
        DataError: if the content is something else or is cut off.
    """
    header = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:header], ">i4").tolist() if len(content) >= header else []
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - header != np.prod(shape):
        raise DataError(
            f"no IDX file of bytes with {dimensions} dimensions",
            where=where,
            mend="Give a file in MNIST's format; images have 3 dimensions, labels 1.",
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
