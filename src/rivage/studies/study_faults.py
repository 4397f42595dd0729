"""What the parts of a study ask of one another: why one that can be read cannot be run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rivage.core.errors import ConfigError, RivageError, nearest
from rivage.core.settings import kind_of
from rivage.federated.kinds import COLLECTIONS
from rivage.studies.study_tables import Method, Run

if TYPE_CHECKING:
    from rivage.federated.algorithm import Algorithm
    from rivage.federated.collectors import Collection

__all__ = ["collector_faults", "is_decentralized", "unfit", "unsound"]


def unfit(methods: Sequence[Method]) -> Iterator[ConfigError]:
    """Methods that choose among others (a setting ``among``), and name what they cannot choose."""
    choosers = {method.name for method in methods if hasattr(method.algorithm, "among")}
    others = list(dict.fromkeys(method.name for method in methods if method.name not in choosers))
    for number, method in enumerate(methods, 1):
        if method.name not in choosers:
            continue
        where = f"[[methods]] {number}"
        if not others:
            yield ConfigError(
                f'"{method.name}" has no method to choose', where=where, mend='Add others, such as kind = "local".'
            )
        for name in getattr(method.algorithm, "among", ()):
            known = f"It may name: {', '.join(others)}."
            if name in choosers:
                yield ConfigError(f'among names "{name}", which itself chooses among others', where=where, mend=known)
            elif name not in others:
                mend = f"{known} {nearest(name, others)}".strip()
                yield ConfigError(f'among names "{name}", but no method is called so', where=where, mend=mend)


def is_decentralized(algorithm: Algorithm) -> bool:
    """Whether a method trains without a server: it has an overlay."""
    return hasattr(algorithm, "overlay")


def unsound(methods: Sequence[Method], run: Run) -> Iterator[ConfigError]:
    """Stages and collectors that cannot do what they promise."""
    for number, method in enumerate(methods, 1):
        for fault in _faults(method, run):
            yield ConfigError(fault.what, where=f"[[methods]] {number}", mend=fault.mend)


def _faults(method: Method, run: Run) -> Iterator[RivageError]:
    from rivage.federated.promises import promise_faults  # imports torch, as the methods have done by now
    from rivage.federated.stages import order_faults

    yield from promise_faults(method.algorithm, method.name, method.stages, method.collector, run.sampling)
    yield from order_faults(method.stages)
    if is_decentralized(method.algorithm):
        if method.stages or kind_of(COLLECTIONS, method.collector) != "mean":
            yield ConfigError(f'"{method.name}" has no server', mend="Leave stages and collector out.")
        return
    if not getattr(method.algorithm, "federates", False):
        if method.stages or kind_of(COLLECTIONS, method.collector) != "mean":
            yield ConfigError(f'"{method.name}" sends no updates', mend="Leave stages and collector out.")
        return
    try:
        method.collector.collector(each=method.algorithm.needs == "each")
    except RivageError as error:
        yield error
    yield from getattr(method.collector, "unsound", lambda stages: ())(method.stages)
    if run.cohort is not None:
        yield from collector_faults(
            method.collector, run.cohort, f"a cohort of {run.cohort} gives", "Raise run.cohort, or lower"
        )


def collector_faults(collector: Collection, clients: int, giver: str, mend: str = "Lower") -> Iterator[ConfigError]:
    """What a collector cannot do with the updates of so many clients, all that may arrive.

    Args:
        collector: of a method.
        clients: asked in a round.
        giver: what gives so few updates, as the start of a sentence.
        mend: what helps, before the setting that could be lower.
    """
    from rivage.federated.robust import Robust

    if hasattr(collector, "faults"):  # optional: a collector that words its own
        yield from collector.faults(clients, giver, mend)
    elif reason := collector.refusal(clients):
        yield ConfigError(f"{giver} {reason}", mend=f"{mend} faulty.")
    elif isinstance(collector, Robust) and (reason := collector.excess(clients)):
        yield ConfigError(reason, mend=f"{mend} keep.")
