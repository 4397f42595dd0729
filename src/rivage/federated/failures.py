"""What fails inside a model's own code, told with its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rivage.core.errors import ProtocolError, RivageError

__all__ = ["Failed", "explained", "naming"]

_FOREIGN = (RuntimeError, ValueError, TypeError, IndexError)


class Failed(Exception):
    """The work on one client failed; the cause is chained.

    Args:
        client: whose.
    """

    def __init__(self, client: int) -> None:
        super().__init__(client)
        self.client = client


def explained(error: BaseException, where: str) -> BaseException:
    """The error for the user: ours with its place, or that of a model's code in our words; others unchanged."""
    if isinstance(error, RivageError):
        return error.at(where)
    if isinstance(error, _FOREIGN):
        return ProtocolError(
            f"the model failed ({type(error).__name__}: {error})",
            where=where,
            mend="Check the model on a batch of this client; batch norm, for one, cannot train on a single record.",
        )
    return error


@contextmanager
def naming(where: str) -> Iterator[None]:
    """What fails inside the block says where."""
    try:
        yield
    except (RivageError, *_FOREIGN) as error:
        raise explained(error, where) from error


@contextmanager
def working_on(client: int) -> Iterator[None]:
    """What fails inside the block is known to concern this client."""
    try:
        yield
    except (RivageError, *_FOREIGN) as error:
        raise Failed(client) from error
