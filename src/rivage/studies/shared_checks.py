"""What every kind of study asks of its names and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rivage.core.errors import ConfigError

__all__ = ["ambiguous", "blank", "require_label", "require_seeds"]


def blank(name: str) -> Iterator[ConfigError]:
    """A study without a name that can be read."""
    if not name.strip() or not name.isprintable():
        yield ConfigError(f"name is {name!r}", mend="Give the study a name of visible characters on one line.")


def ambiguous(names: Sequence[str], noun: str, plural: str, example: str) -> Iterator[ConfigError]:
    """No competitor at all, or several with one name.

    Args:
        names: of the competitors, in the order of the study.
        noun: what one is called.
        plural: what several are called, and the table that lists them.
        example: a kind that always works.
    """
    if not names:
        yield ConfigError(f"there is no {noun}", where=f"[[{plural}]]", mend=f'Add one, such as kind = "{example}".')
    for name, count in Counter(names).items():
        if count > 1:
            numbers = [str(number) for number, other in enumerate(names, 1) if other == name]
            yield ConfigError(
                f'{count} {plural} have the name "{name}"',
                where=f"[[{plural}]] {' and '.join(numbers)}",
                mend="Give each a name of its own: name = ...",
            )


def require_label(name: str) -> None:
    """Refuse a competitor's name that cannot be read in a table.

    Raises:
        ConfigError: naming it.
    """
    if not name.isprintable() or name != name.strip():
        raise ConfigError(f"name is {name!r}", mend="Give a name of visible characters on one line.")


def require_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that are not different whole numbers of 64 bits.

    Raises:
        ConfigError: naming them.
    """
    shown = f"seeds is {list(seeds)}"
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(shown, mend="Give one or several different whole numbers.")
    if not all(0 <= seed < 2**64 for seed in seeds):
        raise ConfigError(shown, mend="Give whole numbers from 0 to 2**64 - 1.")
