"""What the world does to a run: who is there, how long things take."""

from rivage.simulation.availability import (
    AVAILABILITY,
    Always,
    Availability,
    Bernoulli,
    Heterogeneous,
    Markov,
)

__all__ = ["AVAILABILITY", "Always", "Availability", "Bernoulli", "Heterogeneous", "Markov"]
