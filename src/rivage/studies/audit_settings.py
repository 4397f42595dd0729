"""What an audit does: the ``[audit]`` table of a study, and the options of ``rivage audit``."""

from __future__ import annotations

from dataclasses import dataclass

from rivage.core.errors import ConfigError, require

__all__ = ["EPSILON", "Auditing"]

EPSILON = "epsilon"
"""Asks for the test of what a run claims of its privacy, among the kinds of attacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """How `rivage run` audits what it has trained.

    Args:
        attacks: kinds, cheapest first whatever their order here, and ``epsilon`` for the test of what is claimed; left
            out, all.
        method: whose messages; left out, the first method that has any.
        clients: targets, by number or name; left out, those with most records and exchanges.
        targets: how many of these at most, >= 1.
        attribute: the sensitive column; left out, every column of two to six values, the first three.
        budget: seconds after which no further attack is started; 0 asks for no audit.
    """

    attacks: tuple[str, ...] = ()
    method: str = ""
    clients: tuple[int | str, ...] = ()
    targets: int = 5
    attribute: str = ""
    budget: float = 30.0

    def __post_init__(self) -> None:
        require(self.targets, "targets", least=1)
        require(self.budget, "budget", least=0)
        for client in self.clients:
            if not isinstance(client, str):
                require(client, "clients", least=0)
        if self.attacks:
            from rivage.privacy.attack import ATTACKS  # imports torch, which whoever names attacks needs

            for kind in (kind for kind in self.attacks if kind not in ATTACKS and kind != EPSILON):
                ATTACKS.get(kind, where="attacks")
        if len(set(self.attacks)) < len(self.attacks):
            twice = next(kind for kind in self.attacks if self.attacks.count(kind) > 1)
            raise ConfigError(f'attacks names "{twice}" twice', mend="Name each attack once.")
