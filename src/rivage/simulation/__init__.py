"""What the world does to a run: who is there, how long things take."""

from rivage.simulation.availability import (
    AVAILABILITY,
    Always,
    Availability,
    Bernoulli,
    Heterogeneous,
    Markov,
)
from rivage.simulation.devices import DEVICES, Classes, DeviceClass, Devices, LogNormal

__all__ = [
    "AVAILABILITY",
    "DEVICES",
    "Always",
    "Availability",
    "Bernoulli",
    "Classes",
    "DeviceClass",
    "Devices",
    "Heterogeneous",
    "LogNormal",
    "Markov",
]
