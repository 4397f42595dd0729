"""Populations drawn from known laws, so that what is learnt can be held against the truth.

References:
    Marfoq, Neglia, Bellet, Kameni, Vidal. Federated multi-task learning under a mixture of distributions.
    NeurIPS 2021, arXiv 2108.10252 (`Mixture`).

    Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith. Federated optimization in heterogeneous networks. MLSys 2020,
    arXiv 1812.06127 (`Leaf`, there called Synthetic(α, β)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped
from numpy import ndarray

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.dataset import Arrays, Dataset
from rivage.data.population import Schema

__all__ = ["Leaf", "Linear", "Mixture", "MixtureTruth", "logistic_records"]

Pair = tuple[Shaped[ndarray, "_ features"], Shaped[ndarray, "_"]]

_SIZE_LOCATION, _SIZE_SCALE, _SIZE_LEAST = 4.0, 2.0, 50  # records: 50 + floor(LogNormal(4, 2))


@dataclass(frozen=True, slots=True)
class MixtureTruth:
    """What generated a mixture.

    Args:
        components: θ_m, one row per component.
        weights: π_t, one row per client, on the simplex.
    """

    components: Float64[ndarray, "components features"]
    weights: Float64[ndarray, "clients components"]


@dataclass(frozen=True, slots=True)
class Mixture:
    """Each client mixes M unknown linear classifiers, in proportions of its own.

    π_t ~ Dir(α 1_M), θ_m ~ U[−1, 1]^d; a record has x ~ U[−1, 1]^d, a component m ~ π_t and y = 1 iff θ_m ·
    x + N(0, σ²) > 0. A client trains on min(50 + floor(LogNormal(4, 2)), 1000) records. θ is identifiable
    in direction only.

    Args:
        clients: T, >= 1.
        components: M, >= 1.
        features: d, >= 1.
        alpha: α > 0; small makes clients follow one component each.
        noise: σ >= 0.
        max_records: largest number of training records.
        test_records: test records of each client. The published 5,000 with 300 clients and 150 features take
            0.9 GB; `rivage.data.mixture_clients.MixtureOnDemand` draws them when they are looked at.
    """

    clients: int = 300
    components: int = 3
    features: int = 150
    alpha: float = 0.4
    noise: float = 0.1
    max_records: int = 1_000
    test_records: int = 5_000

    def __post_init__(self) -> None:
        for name in ("clients", "components", "features", "max_records", "test_records"):
            require(getattr(self, name), name, least=1)
        require(self.alpha, "alpha", above=0.0)
        require(self.noise, "noise", least=0.0)

    @property
    def schema(self) -> Schema:
        """What a record looks like."""
        return Schema(input_shape=(self.features,), target="class", num_classes=2)

    def sizes(self, seed: int) -> Int64[ndarray, "clients"]:
        """Training records of each client behind ``load(seed)``."""
        return _sizes(self.clients, self.max_records, Streams(seed).child("mixture").numpy("sizes"))

    def truth(self, seed: int) -> MixtureTruth:
        """The components and weights behind ``load(seed)``."""
        streams = Streams(seed).child("mixture")
        components = streams.numpy("components").uniform(-1, 1, (self.components, self.features))
        weights = streams.numpy("weights").dirichlet(np.full(self.components, self.alpha), self.clients)
        return MixtureTruth(components, weights)

    def load(self, seed: int) -> Dataset:
        """Draw all records. O(clients · (max_records + test_records) · features) time and memory."""
        truth, train, streams = self.truth(seed), self.sizes(seed), Streams(seed).child("mixture")
        pairs = [
            self.draw(size + self.test_records, truth.components, weights, streams.numpy("client", client))
            for client, (size, weights) in enumerate(zip(train.tolist(), truth.weights, strict=True))
        ]
        test = np.concatenate([np.arange(size + self.test_records) >= size for size in train])
        return _end_to_end("synthetic", pairs, self.schema, test)

    def draw(
        self,
        size: int,
        components: Float64[ndarray, "components features"],
        weights: Float64[ndarray, "components"],
        rng: np.random.Generator,
    ) -> tuple[Float32[ndarray, "n features"], Int64[ndarray, "n"]]:
        """Records of a client with these weights. O(size · features)."""
        x = rng.uniform(-1, 1, (size, self.features)).astype(np.float32)
        chosen = rng.choice(self.components, size, p=weights / weights.sum())
        scores = np.take_along_axis(x @ components.T, chosen[:, None], axis=1)[:, 0]
        return x, (scores + self.noise * rng.standard_normal(size) > 0).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Leaf:
    """Synthetic(α, β): each client has its own softmax classifier and its own inputs.

    u_k ~ N(0, α²), W_k and b_k ~ N(u_k, 1); B_k ~ N(0, β²), v_k ~ N(B_k, 1), x ~ N(v_k, diag(j^−1.2));
    y = argmax(W_k x + b_k). As in the published code α and β are standard deviations, and (0, 0) still differs
    between clients.

    Args:
        clients: number of clients, >= 1.
        alpha: how much the classifiers differ, >= 0.
        beta: how much the inputs differ, >= 0.
        features: numbers per input, >= 1.
        classes: number of classes, >= 2.
        max_records: largest number of records of a client.
    """

    clients: int = 30
    alpha: float = 1.0
    beta: float = 1.0
    features: int = 60
    classes: int = 10
    max_records: int = 10_000

    def __post_init__(self) -> None:
        for name, least in (("clients", 1), ("features", 1), ("classes", 2), ("max_records", 1)):
            require(getattr(self, name), name, least=least)
        require(self.alpha, "alpha", least=0.0)
        require(self.beta, "beta", least=0.0)

    def load(self, seed: int) -> Dataset:
        """Draw all records."""
        streams = Streams(seed).child("leaf")
        sizes = _sizes(self.clients, self.max_records, streams.numpy("sizes")).tolist()
        pairs = [
            logistic_records(
                size,
                streams.numpy("client", client),
                alpha=self.alpha,
                beta=self.beta,
                features=self.features,
                classes=self.classes,
            )
            for client, size in enumerate(sizes)
        ]
        schema = Schema(input_shape=(self.features,), target="class", num_classes=self.classes)
        return _end_to_end("leaf", pairs, schema)


def logistic_records(
    size: int, rng: np.random.Generator, *, alpha: float, beta: float, features: int, classes: int
) -> tuple[Float32[ndarray, "n features"], Int64[ndarray, "n"]]:
    """Records of one client of Synthetic(α, β), see `Leaf`; all of it drawn from the client's own generator."""
    shared, centre = rng.standard_normal(2) * (alpha, beta)
    weights = shared + rng.standard_normal((features, classes))
    bias = shared + rng.standard_normal(classes)
    location = centre + rng.standard_normal(features)
    deviations = np.arange(1, features + 1) ** -0.6
    x = location + deviations * rng.standard_normal((size, features))
    return x.astype(np.float32), (x @ weights + bias).argmax(axis=1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Linear:
    """Linear regression with known optima: y = (θ + δ_k) · x + noise, x ~ N(0, I_d).

    θ ~ N(0, I_d) is shared, δ_k ~ N(0, spread² I_d) is the client's own. The best single model is θ plus
    the mean of the δ_k weighted by size, up to the noise; each client's own best is θ + δ_k.

    Args:
        clients: number of clients, >= 1.
        features: d, >= 1.
        records: records per client, >= 1.
        spread: how much clients differ, >= 0.
        noise: standard deviation of the noise, >= 0.
    """

    clients: int = 20
    features: int = 10
    records: int = 200
    spread: float = 0.5
    noise: float = 0.1

    def __post_init__(self) -> None:
        for name in ("clients", "features", "records"):
            require(getattr(self, name), name, least=1)
        require(self.spread, "spread", least=0.0)
        require(self.noise, "noise", least=0.0)

    def truth(self, seed: int) -> Float64[ndarray, "clients features"]:
        """θ + δ_k of each client behind ``load(seed)``."""
        streams = Streams(seed).child("linear")
        own = streams.numpy("own").standard_normal((self.clients, self.features))
        result: Float64[ndarray, "clients features"] = (
            streams.numpy("shared").standard_normal(self.features) + self.spread * own
        )
        return result

    def load(self, seed: int) -> Dataset:
        """Draw all records."""
        streams = Streams(seed).child("linear")
        pairs = []
        for client, slope in enumerate(self.truth(seed)):
            rng = streams.numpy("client", client)
            x = rng.standard_normal((self.records, self.features)).astype(np.float32)
            y = x @ slope + self.noise * rng.standard_normal(self.records)
            pairs.append((x, y.astype(np.float32)))
        schema = Schema(input_shape=(self.features,), target="real", num_outputs=1)
        return _end_to_end("linear", pairs, schema)


def _sizes(clients: int, most: int, rng: np.random.Generator) -> Int64[ndarray, "clients"]:
    # Bounded before it becomes an integer: a lognormal draw may pass any integer type.
    drawn = np.minimum(np.floor(rng.lognormal(_SIZE_LOCATION, _SIZE_SCALE, clients)) + _SIZE_LEAST, most)
    sizes: Int64[ndarray, "clients"] = drawn.astype(np.int64)
    return sizes


def _end_to_end(
    source: str, pairs: Sequence[Pair], schema: Schema, test: Shaped[ndarray, "n"] | None = None
) -> Dataset:
    x, y = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return Dataset(
        source=source,
        records=Arrays(x, y, schema),
        clients=np.repeat(np.arange(len(pairs)), [len(targets) for _, targets in pairs]),
        names=tuple(f"client {client}" for client in range(len(pairs))),
        test=test,
    )
