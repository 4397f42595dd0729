"""Networks that a study spells out: the builders they name, and refusals with their places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.core.registry import Registry
from rivage.core.settings import OneOf, dump, read
from rivage.core.toml import format_toml, parse_toml
from rivage.graphs import Underlay, cities

KINDS = Registry(
    "rivage.none",
    "network",
    {"described": "rivage.graphs.place_kinds:Described", "cities": "rivage.graphs.place_kinds:Cities"},
)


@dataclass(frozen=True)
class Study:
    network: Annotated[Any, OneOf(KINDS)]


def built(text: str) -> Underlay:
    """The network of a study that is read, written and read again."""
    study = read(Study, parse_toml(text), "study.toml")
    again = read(Study, parse_toml(format_toml(dump(study))), "study.toml")
    assert again == study
    network: Underlay = again.network.build()
    return network


def test_a_network_may_stand_in_the_study() -> None:
    network = built("""
        [network]
        kind = "described"
        [[network.nodes]]
        name = "a"
        [[network.nodes]]
        name = "b"
        [[network.links]]
        ends = ["a", "b"]
        round_trip_ms = 6
    """)
    assert network.names == ("a", "b")
    assert network.network().weights.tolist() == [6]


def test_cities_get_latencies_as_the_study_says() -> None:
    network = built("""
        [network]
        kind = "cities"
        places = ["Paris", "Nice", "Rome"]
        links = "tree"
        ms_per_km = 0.005
        ms_per_link = 1
    """)
    plain = cities(["Paris", "Nice", "Rome"], links="tree")
    assert np.array_equal(network.edges, plain.edges)
    assert np.array_equal(network.known("latency_ms"), 0.005 * plain.known("distance_km") + 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "cities"\nplaces = ["Pariss"]\nms_per_km = 0', 'no city "Pariss"'),
        ('kind = "cities"\nplaces = ["Paris"]', '"ms_per_km" is missing'),
        ('kind = "cities"\nplaces = ["Paris"]\nms_per_km = -1', "ms_per_km is -1"),
        ('kind = "cities"\nplaces = ["Paris"]\nms_per_km = 1\nms_per_link = nan', "ms_per_link is nan"),
        ('kind = "cities"\nplaces = ["Paris"]\nms_per_km = 1\nneighbours = 0', "neighbours is 0"),
        ('kind = "described"\nnodes = []', "there is no node"),
        ('kind = "described"\n[[network.nodes]]\nname = "a"\n[[network.nodes]]\nname = "b"', 'no path from "a"'),
        (
            'kind = "described"\n[[network.nodes]]\nname = "a"\n[[network.links]]\nends = ["a", "a"]',
            r"\[\[network.links\]\] 1, link a–a: the link joins",
        ),
    ],
)
def test_what_is_no_network_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        built(f"[network]\n{text}")
    assert str(caught.value).startswith("study.toml, [")
