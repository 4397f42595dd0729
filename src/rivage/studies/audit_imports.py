"""A folder of updates of another system, as a log that can be audited."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rivage.core.errors import ConfigError, RivageError
from rivage.core.message_log import MessageLog
from rivage.privacy.import_header import HEADERS
from rivage.privacy.imported import import_updates

__all__ = ["imported_log", "is_import"]


def is_import(folder: Path) -> bool:
    """Whether a folder describes updates of another system."""
    return any((folder / name).is_file() for name in HEADERS)


@contextmanager
def imported_log(folder: Path) -> Iterator[Path]:
    """A log made of a folder of updates, beside it: ``updates.rvg`` of ``updates``.

    Where nothing can be written there, it is a temporary file, which goes when the context ends.

    Raises:
        ConfigError: if another file of that name is in the way, or for a faulty header.
        DataError: for files that are not as `rivage.privacy.imported` describes.
    """
    whole = Path(os.path.abspath(folder))  # "." has no name
    log = whole.with_name(f"{whole.name}.rvg")
    if os.access(log.parent, os.W_OK):
        if log.exists() and not _was_imported(log):
            raise ConfigError(
                "is in the way: the folder of updates would become a log of that name, and this is none that was "
                "imported",
                where=str(log),
                mend="Move it away.",
            )
        import_updates(folder, log)
        yield log
        return
    with TemporaryDirectory() as place:
        log = Path(place) / log.name
        import_updates(folder, log)
        yield log


def _was_imported(log: Path) -> bool:
    """Logs of trainings here do not say what updates hold; imported ones do."""
    try:
        return "kind" in MessageLog.read_header(log)
    except RivageError:
        return False
