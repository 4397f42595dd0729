"""Published files on the user's disk: found, checked against their known hash, never downloaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rivage.core.errors import DataError

__all__ = ["Publication"]

_VARIABLE = "RIVAGE_DATA"


@dataclass(frozen=True, slots=True)
class Publication:
    """A published data set.

    Args:
        kind: the ``kind`` of ``[data]`` that reads it.
        folder: its folder below the one that the environment variable RIVAGE_DATA names.
        origin: where a person gets it.
        hashes: file name -> SHA-256 of its content.
    """

    kind: str
    folder: str
    origin: str
    hashes: Mapping[str, str]

    def locate(self, folder: Path | None) -> Path:
        """The folder that holds the files: the one given, else the one below RIVAGE_DATA.

        Raises:
            DataError: telling what is missing, where it comes from and where to put it.
        """
        root = os.environ.get(_VARIABLE)
        place = folder if folder is not None else Path(root) / self.folder if root else None
        missing = [name for name in self.hashes if place is None or not (place / name).is_file()]
        if place is None or missing:
            wanted = "; ".join(f"{name} (sha256 {self.hashes[name]})" for name in missing)
            spot = f'"{place}"' if place else f"a folder named by [data] folder or, below {_VARIABLE}, {self.folder}/"
            raise DataError(
                f'kind "{self.kind}" needs files that are not there: {wanted}',
                where="[data]",
                mend=f"Get them from {self.origin} and put them into {spot}.",
            )
        return place

    def read(self, folder: Path | None, name: str) -> bytes:
        """The content of one file.

        Raises:
            DataError: if it is missing, or is not the published one.
        """
        path = self.locate(folder) / name
        content = path.read_bytes()
        self.verify(name, content, path)
        return content

    def verify(self, name: str, content: bytes, path: Path) -> None:
        """Compare a content with the published hash.

        Raises:
            DataError: if they differ.
        """
        found = hashlib.sha256(content).hexdigest()
        if found != self.hashes[name]:
            raise DataError(
                f"the content has sha256 {found}, the published file has {self.hashes[name]}",
                where=str(path),
                mend=f"Get the file again from {self.origin}.",
            )
