"""The models that a training hands over: to export, to serving, to an audit.

A bundle holds one model per client and one for newcomers. Each is a mixture, ``Σ_m mix_m · prediction_m(x)``,
of parameter vectors that the bundle stores once, however many clients use them: a global model costs one
vector, the three shared components of a mixture method three. Where clients remember records of their own
(`rivage.learning.neighbours`), their datastores are in the bundle: with features and targets of training records
it is as private as the data.

On disk it is one safetensors file with its description as JSON in the metadata; nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from rivage.core.encoding import dumps
from rivage.core.errors import ConfigError, DataError, StoreError
from rivage.core.store import load_tensors, save_tensors
from rivage.data.population import Schema
from rivage.learning.neighbours import Neighbours
from rivage.learning.params import ParameterMap, from_numpy, to_numpy
from rivage.learning.remembered import pack, unpack
from rivage.learning.task import Task, TaskSettings, make_task

__all__ = ["ModelBundle", "Personal", "Predict", "Provenance"]

_FORMAT, _REMEMBERING = "rivage.bundle/1", "rivage.bundle/2"
_BATCH = 256  # records per forward pass: bounds the memory of activations
_NEWCOMER = -1
_COLUMNS = ("clients", "groups", "rows", "mix", "scores")

Predict = Callable[[ndarray], ndarray]
"""Inputs ``[n, *input]`` -> predictions: probabilities, or reals in the unit the target had before it was scaled."""


@dataclass(frozen=True, slots=True)
class Personal:
    """One client's model.

    Args:
        rows: which of the bundle's vectors it mixes.
        mix: weight of each one's predictions, on the simplex.
        score: the metric on the client's test records; None where it is undefined or was not measured.
        neighbours: remembered records that predict beside the vectors, compared by the features of the first; None
            without, or where their share is 0.
    """

    rows: tuple[int, ...]
    mix: tuple[float, ...]
    score: float | None = None
    neighbours: Neighbours | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a bundle comes from.

    Args:
        run: hash of what the trial's result depends on: method, data, model, seed.
        method: name of the method in its study.
        seed: of the trial.
        references: what to cite, as JSON objects.
    """

    run: str = ""
    method: str = ""
    seed: int = 0
    references: tuple[Mapping[str, Any], ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelBundle:
    """Models of all clients of one trial, with all that is needed to run them.

    Args:
        vectors: the distinct parameter vectors.
        clients: client number -> its model.
        newcomer: the model of a client that never took part; None where the method has none.
        settings: the model, loss and metric, with nothing left empty.
        schema: what a record looks like.
        layout: what lies where in a vector.
        provenance: where it comes from.
    """

    vectors: Float[ndarray, "vectors dim"]
    clients: Mapping[int, Personal]
    newcomer: Personal | None
    settings: TaskSettings
    schema: Schema
    layout: ParameterMap
    provenance: Provenance = field(default_factory=Provenance)

    @classmethod
    def collect(
        cls,
        models: Iterable[tuple[int, Float[ndarray, "_ dim"], Float[ndarray, "_"], float | None]],
        *,
        newcomer: tuple[Float[ndarray, "_ dim"], Float[ndarray, "_"]] | None,
        settings: TaskSettings,
        task: Task,
        provenance: Provenance,
        neighbours: Mapping[int, Neighbours | None] = MappingProxyType({}),
    ) -> ModelBundle:
        """Build a bundle from the personal models of a method.

        Args:
            models: (client, params, mix, score on test) of each client; read once. Equal vectors are stored
                once, groups of weight 0 are dropped.
            newcomer: (params, mix) of the model for clients that never took part.
            settings: what ``task`` was made from.
            task: what was learnt.
            provenance: where it comes from.
            neighbours: what clients remember, of those that do; shares are known.
        """
        vectors = _Vectors()
        fresh = None if newcomer is None else vectors.add(*newcomer, None)
        clients = {client: vectors.add(params, mix, score) for client, params, mix, score in models}
        speaking = {client: n for client, n in neighbours.items() if n is not None and n.speak}
        clients |= {client: replace(clients[client], neighbours=n) for client, n in speaking.items()}
        return cls(
            vectors=vectors.stack(task.dimension),
            clients=clients,
            newcomer=fresh,
            settings=settings.resolved(task.schema),
            schema=task.schema,
            layout=task.layout,
            provenance=provenance,
        )

    def personal(self, client: int | None) -> Personal:
        """The model of a client, or with None of a newcomer.

        Raises:
            DataError: for a client without a model.
        """
        model = self.newcomer if client is None else self.clients.get(client)
        if model is None:
            who = "a newcomer" if client is None else f"client {client}"
            raise DataError(
                f"the bundle has no model for {who}",
                where=f"method {self.provenance.method}",
                mend=f"It has {len(self.clients)} clients; None asks for the model of a newcomer.",
            )
        return model

    def parts(self, client: int | None) -> tuple[Float[ndarray, "groups dim"], Float[ndarray, "groups"]]:
        """Parameter vectors and mix of a client's model (None: of a newcomer), as `collect` takes them."""
        personal = self.personal(client)
        return self.vectors[list(personal.rows)], np.array(personal.mix)

    def task(self, model: Callable[..., Any] | None = None) -> Task:
        """The task the vectors belong to.

        Args:
            model: the class or function that made the model, where that is not part of rivage or of an
                installed plug-in.

        Raises:
            ConfigError: if such a model is not given, or a model has other parameters than the bundle.
        """
        if model is None and ":" in self.settings.model:
            raise ConfigError(
                f'the bundle names the model "{self.settings.model}", and files import no code',
                mend="Import it yourself and pass it as model.",
            )
        task = make_task(self.settings, self.schema, dtype=self._dtype, model=model)
        if task.layout != self.layout:
            raise ConfigError(
                f'model "{self.settings.model}" has other parameters than the bundle was trained with',
                mend="Use the version of the code that trained it.",
            )
        return task

    def predictor(self, client: int | None = None, model: Callable[..., Any] | None = None) -> Predict:
        """The model of a client (None: of a newcomer) as a function of arrays. For one thread at a time.

        Args:
            client: its number.
            model: see `task`.
        """
        personal, task = self.personal(client), self.task(model)
        parts = []
        for row, share in zip(personal.rows, personal.mix, strict=True):
            bound = task.bind()
            bound.load(from_numpy(self.vectors[row]))
            parts.append((bound, share))

        def predict(x: Shaped[ndarray, "n *input"]) -> Float[ndarray, "n *output"]:
            starts = range(0, max(len(x), 1), _BATCH)
            return np.concatenate([mixture(x[start : start + _BATCH]) for start in starts])

        def mixture(x: Shaped[ndarray, "n *input"]) -> Float[ndarray, "n *output"]:
            inputs = task.inputs(x)
            outputs = [share * to_numpy(bound.predictions(inputs)) for bound, share in parts]
            total: ndarray = np.sum(outputs, axis=0)
            if personal.neighbours is not None:
                features = parts[0][0].features(inputs)
                total = to_numpy(personal.neighbours.mixed(from_numpy(total), features))
            return total * self.schema.unit + self.schema.center if self.schema.target == "real" else total

        return predict

    @property
    def _dtype(self) -> Any:
        return from_numpy(np.empty(0, self.vectors.dtype)).dtype

    def save(self, path: Path) -> None:
        """Write the bundle as one safetensors file."""
        models = list(self.clients.items())
        if self.newcomer is not None:
            models.insert(0, (_NEWCOMER, self.newcomer))
        remembered = {client: model.neighbours for client, model in models if model.neighbours is not None}
        scores = [math.nan if model.score is None else model.score for _, model in models]
        tensors = {
            "vectors": self.vectors,
            "clients": np.array([client for client, _ in models], np.int64),
            "groups": np.array([len(model.rows) for _, model in models], np.int64),
            "rows": np.array([row for _, model in models for row in model.rows], np.int64),
            "mix": np.array([share for _, model in models for share in model.mix], np.float64),
            "scores": np.array(scores, np.float64),
            **pack(remembered),
        }
        form = {
            "settings": asdict(self.settings),
            "schema": asdict(self.schema),
            "layout": self.layout.as_json(),
            "provenance": asdict(self.provenance),
        }
        # Who cannot read neighbours must not predict without them.
        save_tensors(path, tensors, {"format": _REMEMBERING if remembered else _FORMAT, "bundle": dumps(form)})

    @classmethod
    def load(cls, path: Path) -> ModelBundle:
        """Read a bundle and check that its parts fit together.

        Raises:
            StoreError: if the file is missing, corrupt, or not a bundle.
        """
        tensors, metadata = load_tensors(path)
        try:
            if metadata.get("format") not in (_FORMAT, _REMEMBERING):
                raise ValueError(f'format is "{metadata.get("format", "")}", not "{_FORMAT}"')
            return cls._parse(tensors, json.loads(metadata["bundle"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"is not a model bundle ({error})",
                where=str(path),
                mend="Check that it is the right file, or write it again with this version of rivage.",
            ) from error

    @classmethod
    def _parse(cls, tensors: Mapping[str, ndarray], form: Mapping[str, Any]) -> ModelBundle:
        layout, vectors = ParameterMap.from_json(form["layout"]), tensors["vectors"]
        if vectors.dtype.kind != "f" or vectors.shape[1:] != (layout.dimension,):
            raise ValueError(f"vectors are {vectors.dtype} of shape {vectors.shape}, D is {layout.dimension}")
        models = dict(_models(tensors))
        for client, neighbours in unpack(tensors):
            models[client] = replace(models[client], neighbours=neighbours)
        provenance = {**form["provenance"], "references": tuple(form["provenance"]["references"])}
        return cls(
            vectors=vectors,
            newcomer=models.pop(_NEWCOMER, None),
            clients=models,
            settings=TaskSettings(**form["settings"]),
            schema=Schema(**{key: _tuples(value) for key, value in form["schema"].items()}),
            layout=layout,
            provenance=Provenance(**provenance),
        )


class _Vectors:
    """Parameter vectors in the order they came, each once."""

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self._vectors: list[ndarray] = []

    def add(self, params: Float[ndarray, "groups dim"], mix: Float[ndarray, "groups"], score: float | None) -> Personal:
        used = [group for group in range(len(mix)) if mix[group] != 0]
        rows = tuple(self._row(params[group]) for group in used)
        return Personal(rows, tuple(float(mix[group]) for group in used), score)

    def _row(self, vector: Float[ndarray, "dim"]) -> int:
        vector = np.ascontiguousarray(vector)
        digest = hashlib.blake2b(vector.data, digest_size=32).digest()
        row = self._rows.setdefault(digest, len(self._vectors))
        if row == len(self._vectors):
            self._vectors.append(vector.copy())  # the caller may reuse its memory
        return row

    def stack(self, dimension: int) -> Float[ndarray, "vectors dim"]:
        return np.stack(self._vectors) if self._vectors else np.empty((0, dimension), np.float32)


def _models(tensors: Mapping[str, ndarray]) -> Iterable[tuple[int, Personal]]:
    clients, groups, rows, mix, scores = (tensors[name].ravel() for name in _COLUMNS)
    if (groups < 1).any() or not groups.sum() == len(rows) == len(mix):
        raise ValueError(f"{len(rows)} rows and {len(mix)} weights for {groups.sum()} groups")
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(tensors["vectors"]):
        raise ValueError(f"rows {rows.min()} to {rows.max()} of {len(tensors['vectors'])} vectors")
    ends = np.cumsum(groups)
    for client, score, start, end in zip(clients.tolist(), scores.tolist(), ends - groups, ends, strict=True):
        weights = mix[start:end]
        if not (weights >= 0).all() or not math.isclose(weights.sum(), 1, rel_tol=1e-4):
            raise ValueError(f"the weights of client {client} sum to {weights.sum()}")
        value = None if math.isnan(score) else score
        yield client, Personal(tuple(rows[start:end].tolist()), tuple(weights.tolist()), value)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
