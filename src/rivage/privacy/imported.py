"""Message logs from the updates of other systems: a folder of NumPy or safetensors files becomes a log.

::

    header.toml                        what is known of the training (or header.json)
    round-0-sent.safetensors           the model that the clients of round 0 were sent
    round-0-client-17-sent.npz         another one that client 17 was sent, if it got its own
    round-0-client-17.safetensors      what client 17 returned

A file holds every tensor under its name, or all of them as one flat array ``params``; and, as ``__weight__``, the
weight of the update if it is known. The header lists names and shapes in the order of the module's parameters.
Everything is checked, nothing is guessed, and no pickle is ever loaded. Numbers that are not finite are written to the
log as they came: readers of the log name them and leave them out.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rivage.core.encoding import decode_tensors
from rivage.core.errors import DataError, RivageError, nearest
from rivage.core.message_log import MessageLog
from rivage.core.messages import Message
from rivage.privacy.import_header import HEADERS, WEIGHT, ImportHeader, read_header
from rivage.privacy.recorded import Recorded

__all__ = ["import_updates"]

_NAME = re.compile(r"round-(\d{1,15})-(?:client-(\d{1,15})|sent|client-(\d{1,15})-sent)\.(npz|safetensors)", re.ASCII)
_MAX_FILES = 10**6
_SLACK = 16 << 20  # bytes that a file may have beyond its numbers in float64, twice
_TOLD = 10  # faults in one error
_SEND = "Write the files anew with numpy.savez or safetensors."


def import_updates(folder: Path, log: Path) -> Recorded:
    """Make a message log of a folder of updates. One file in memory at a time.

    Args:
        folder: as described above.
        log: the file to write; it appears when all is well.

    Returns:
        The log, to be given to views.

    Raises:
        DataError: for anything that is not as described, naming the files, at most ten of them.
        ConfigError: for a header with unknown or missing keys.
    """
    header, files = read_header(Path(folder)), _listed(Path(folder))
    part = Path(log).with_name(f".{Path(log).name}.part")
    faults: list[RivageError] = []
    try:
        with MessageLog.create(part, header.as_log()) as written:
            for message in _Folder(header, files).messages(faults):
                written.append(message)
        if faults:
            raise _all(faults, Path(folder))
        os.replace(part, log)
    finally:
        part.unlink(missing_ok=True)
    return Recorded(Path(log))


# --- the folder ---------------------------------------------------------------------------------------------

_Key = tuple[int, int]  # round and client; client −1 is everyone


@dataclass(frozen=True, slots=True)
class _Files:
    """By round and client."""

    sent: dict[_Key, Path]
    returned: dict[_Key, Path]


def _listed(folder: Path) -> _Files:
    files = _Files({}, {})
    faults: list[RivageError] = []
    for number, entry in enumerate(sorted(os.scandir(folder), key=lambda entry: entry.name)):
        if number > _MAX_FILES:
            raise DataError(f"has more than {_MAX_FILES} files", where=str(folder), mend="Import it in parts.")
        if entry.name in HEADERS or entry.name.startswith((".", "README")):
            continue
        if fault := _place(Path(entry.path), files):
            faults.append(fault)
    unsent = sorted({key for key in files.returned if key not in files.sent and (key[0], -1) not in files.sent})
    for round, client in unsent[:_TOLD]:
        mend = f"Add round-{round}-sent.npz or .safetensors, the model that its clients were sent."
        faults.append(DataError(f"nothing says what client {client} was sent in round {round}", mend=mend))
    if not (files.returned or faults):
        faults.append(DataError("has no updates", mend="Call them round-0-client-17.safetensors, or .npz."))
    if faults:
        raise _all(faults, folder)
    return files


def _place(path: Path, files: _Files) -> DataError | None:
    match = _NAME.fullmatch(path.name)
    if match is None:
        pickled = path.suffix in (".pt", ".pth", ".pkl", ".pickle", ".bin")
        mend = "Pickles are never loaded: save it with safetensors." if pickled else "Call it round-0-client-17.npz."
        return DataError("is no file of the format", where=path.name, mend=mend)
    round, client, own = int(match[1]), match[2], match[3]
    place = files.sent if client is None else files.returned
    key = round, int(client or own or -1)
    if key in place:
        return DataError(f"says the same as {place[key].name}", where=path.name, mend="Delete one of them.")
    place[key] = path
    return None


def _all(faults: list[RivageError], folder: Path) -> RivageError:
    if len(faults) == 1:
        return faults[0].at(str(folder))
    lines = "".join(f"\n  {fault}" for fault in faults[:_TOLD])
    more = f"\n  and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
    return DataError(f"{len(faults)} problems{lines}{more}", where=str(folder))


# --- one file -----------------------------------------------------------------------------------------------


class _Folder:
    """Reads updates, round by round and client by client."""

    def __init__(self, header: ImportHeader, files: _Files) -> None:
        self.header, self.files, self.layout = header, files, header.layout
        self.limit = 16 * self.layout.dimension + _SLACK

    def messages(self, faults: list[RivageError]) -> Iterator[Message]:
        """Broadcast and update of every exchange; files that cannot be read are noted."""
        source, sent = None, None
        for round, client in sorted(self.files.returned):
            path = self.files.sent.get((round, client)) or self.files.sent[round, -1]
            if path != source:
                source, sent = path, self._noted(path, faults, sent=True)
            update = self._noted(self.files.returned[round, client], faults, sent=False)
            if sent is None or update is None:
                continue
            who = f"client:{client}"
            yield Message(round=round, sender="server", receiver=who, kind="broadcast", payload=sent)
            yield Message(round=round, sender=who, receiver="server", kind="update", payload=update)

    def _noted(self, path: Path, faults: list[RivageError], *, sent: bool) -> dict[str, ndarray] | None:
        try:
            return self._payload(path, sent=sent)
        except RivageError as fault:
            faults.append(fault.at(path.name))
            return None

    def _payload(self, path: Path, *, sent: bool) -> dict[str, ndarray]:
        arrays = {name: array for name, array in _arrays(path, self.limit).items() if name not in self.layout.kept}
        weight = arrays.pop(WEIGHT, None)
        payload = {"params": self._vector(arrays, partial=not sent and self.header.kind == "gradient")}
        if weight is None or sent:
            return payload
        if weight.size != 1 or weight.dtype.kind not in "fiu":
            raise DataError(f"{WEIGHT} is no number", mend="Give the weight of the update, such as its records.")
        return payload | {"params.weight": weight.reshape(1).astype(np.float64)}

    def _vector(self, arrays: Mapping[str, ndarray], *, partial: bool) -> Float[ndarray, "dim"]:
        names = [entry.name for entry in self.layout.entries]
        if set(arrays) == {"params"} and "params" not in names:
            return _checked("params", arrays["params"], (self.layout.dimension,))
        if strangers := sorted(arrays.keys() - set(names)):
            mend = f'{nearest(strangers[0], names)} List it in the header, or in "ignored".'.strip()
            raise DataError(f'"{strangers[0]}" is not in the header', mend=mend)
        trained = [entry.name for entry in self.layout.entries if entry.offset < self.layout.trainable]
        if missing := [name for name in (trained if partial else names) if name not in arrays]:
            raise DataError(f'"{missing[0]}" is missing', mend="Save all tensors that the header lists.")
        flat = [_checked(e.name, arrays[e.name], e.shape) for e in self.layout.entries if e.name in arrays]
        dtype = np.result_type(*flat)
        parts = iter(flat)
        return np.concatenate(
            [next(parts).astype(dtype) if e.name in arrays else np.zeros(e.size, dtype) for e in self.layout.entries]
        )


def _checked(name: str, array: ndarray, shape: tuple[int, ...]) -> Float[ndarray, "size"]:
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise DataError(f'"{name}" is of type {array.dtype}', mend="Save float16, float32 or float64.")
    if array.shape != shape:
        raise DataError(f'"{name}" has shape {array.shape} where the header says {shape}', mend="Correct one of them.")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1)


def _arrays(path: Path, limit: int) -> dict[str, ndarray]:
    """The arrays of a file, which has at most so many bytes, packed and unpacked."""
    if (size := path.stat().st_size) > limit:
        raise DataError(f"has {size} bytes where {limit} are enough for the model of the header", mend=_SEND)
    return _npz(path, limit) if path.suffix == ".npz" else _safetensors(path)


def _safetensors(path: Path) -> dict[str, ndarray]:
    try:
        return decode_tensors(bytearray(path.read_bytes()), where=path.name)[0]
    except RivageError as error:
        raise DataError(error.what, mend=f"{_SEND} The types are float16, float32 and float64.") from error


def _npz(path: Path, limit: int) -> dict[str, ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > limit:
                raise DataError(f"unpacks to {size} bytes where {limit} are enough", mend=_SEND)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except DataError:
        raise
    except Exception as error:  # of zipfile, zlib and NumPy, which say a damaged file in a dozen ways
        raise DataError(f"is no archive of plain arrays ({error})", mend=_SEND) from error
