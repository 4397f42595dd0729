"""What differs between two runs, in words: trees of settings leaf by leaf, sequences of events up to the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rivage.core.encoding import dumps

__all__ = ["different", "different_trials"]

Trial = tuple[str, int]
Event = Mapping[str, Any]


def different(place: str, here: Any, there: Any) -> list[str]:
    """The leaves in which two trees of JSON values differ, one sentence each.

    Args:
        place: what the trees are called; it stands in front of every leaf.
        here: a value; lists and mappings are walked through.
        there: the other value.
    """
    one, two = dict(_leaves(here, place)), dict(_leaves(there, place))
    return [
        f"{key}: {one.get(key, 'nothing')!r} here, {two.get(key, 'nothing')!r} there"
        for key in dict.fromkeys([*one, *two])
        if key not in one or key not in two or dumps(one[key]) != dumps(two[key])
    ]


def _leaves(tree: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping | list) and tree:
        for key, branch in tree.items() if isinstance(tree, Mapping) else enumerate(tree, 1):
            yield from _leaves(branch, f"{place}.{key}")
    else:
        yield place, tree


def different_trials(here: Mapping[Trial, Sequence[Event]], there: Mapping[Trial, Sequence[Event]]) -> list[str]:
    """Where the events of the trials of two runs part, one sentence for each trial that differs.

    Args:
        here: method and seed -> events.
        there: those of the other run.
    """
    sentences: list[str] = []
    for method, seed in dict.fromkeys([*here, *there]):
        one, two = here.get((method, seed)), there.get((method, seed))
        if one is None or two is None:
            sentences.append(f"{method}, seed {seed}: only {'there' if one is None else 'here'}")
        elif difference := _first_difference(one, two):
            sentences.append(f"{method}, seed {seed}: {difference}")
    return sentences


def _first_difference(one: Sequence[Event], two: Sequence[Event]) -> str | None:
    for number, (here, there) in enumerate(zip_longest(one, two)):
        if here is None or there is None:
            return f"{'there' if here is None else 'here'} it goes on after event {number}"
        if dumps(here) != dumps(there):  # as the hash sees them: 1 is not 1.0
            at = f" of round {here['round']}" if "round" in here else ""
            return f"event {number} ({here.get('event')}{at}) differs: {'; '.join(different('it', here, there)[:3])}"
    return None
