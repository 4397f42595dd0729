"""The stacked executor: dense chains of many clients, one batched product per layer and step.

Rows are (client, group) pairs, groups being independent models of one client. Rows are sorted by their number of steps
and cut into tiles whose parameters fit the cache. Inside a tile the rows that still have batches are always a prefix,
so ended clients cost nothing; only partial batches are padded, with records of share 0. One step of a tile is, with
all signals s_l taken at the old parameters (`rivage.federated.executors.chain`),

    W ← lerp(W, anchor, rate · strength) − rate · drift − s' a,

the update being fused into the product. With `Phase.clip` the signals of a record are scaled by min(1, clip / norm),
where the norm of its gradient comes from ‖s a'‖ = ‖s‖ ‖a‖ (ghost norms; Goodfellow, arXiv 1510.01799).

How rows are cut does not depend on the number of workers, so neither do the results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rivage.data.population import Samples
from rivage.federated.algorithm import Algorithm, Local, Phase, Pull
from rivage.federated.executors.chain import Chain, Stack
from rivage.federated.executors.jobs import Job, chosen, expected, joint_update, strength_of
from rivage.federated.executors.packing import pack
from rivage.learning.task import Task

__all__ = ["Row", "Tiled", "cut"]

_GATHERED = 1 << 16  # numbers of the inputs gathered at a time: they are still in the cache when used


@dataclass(frozen=True, slots=True)
class Row:
    """One model of one client."""

    job: Job
    group: int

    @property
    def steps(self) -> int:
        """Number of batches."""
        return len(self.job.batches.sizes)

    @property
    def signature(self) -> tuple[float, bool, bool, bool, int]:
        """What must be alike within a tile: the pull's strength, whether there is a pull, drift, weights; groups."""
        local = self.job.local
        given = local.pull is not None, local.drift is not None, local.weights is not None
        return strength_of(local, self.group), *given, len(local.params)


def cut(jobs: Sequence[Job], row_bytes: int, tile_bytes: int, *, joint: bool) -> list[list[Row]]:
    """Tiles of rows, each sorted by falling number of steps.

    Args:
        jobs: their batches are set.
        row_bytes: parameters of one model.
        tile_bytes: parameters of a tile, at most, unless one row is larger.
        joint: the groups of a client stay together, and only the first stands for all of them.
    """
    rows = [Row(job, group) for job in jobs for group in range(1 if joint else len(job.local.params))]
    rows = sorted((row for row in rows if row.steps), key=lambda row: (row.signature, -row.steps))
    tiles: list[list[Row]] = []
    for _, alike in groupby(rows, key=lambda row: row.signature):
        members = list(alike)
        size = row_bytes * (len(members[0].job.local.params) if joint else 1)
        count = math.ceil(len(members) / max(1, tile_bytes // size))
        bounds = [len(members) * i // count for i in range(count + 1)]
        tiles += [members[a:b] for a, b in pairwise(bounds)]
    return tiles


class Tiled:
    """Trains tiles of a chain; may serve several threads.

    Args:
        task: what is learnt.
        chain: its model.
    """

    def __init__(self, task: Task, chain: Chain) -> None:
        self.task, self.chain = task, chain

    def train(self, algorithm: Algorithm, phase: Phase, tile: Sequence[Row]) -> list[Float[Tensor, "*groups dim"]]:
        """Run the batches of one phase on a tile.

        Returns:
            The parameters each row ends with; for algorithms with `step` or `correct` those of all groups of the
            client, whose `Local.extra` and ``gradients`` are then filled in as well.
        """
        with torch.no_grad():
            if hasattr(algorithm, "step") or hasattr(algorithm, "correct"):
                return _Together(self, phase, tile).run(algorithm)
            return _Apart(self, phase, tile).run()

    def predictions(
        self, params: Float[Tensor, "rows dim"], x: Sequence[Tensor]
    ) -> list[Float[Tensor, "records *output"]]:
        """What each row's model predicts for its own records, without gradients; padded to the longest."""
        longest = max(len(part) for part in x)
        padded = torch.zeros(len(x), longest, x[0][0].numel(), dtype=self.task.dtype, device=self.task.device)
        for row, part in zip(padded, x, strict=True):
            row[: len(part)] = part.flatten(1)
        with torch.no_grad():
            outputs = self.chain.forward(self.chain.stack(self.chain.unflatten(params)), padded)[-1]
            flat = self.task.loss.predict(outputs.flatten(0, 1))
            predicted = flat.view(len(x), longest, *flat.shape[1:])
        return [row[: len(part)] for row, part in zip(predicted, x, strict=True)]


class _Tile:
    """Records of a tile in the order they are used, and which parameters learn."""

    def __init__(self, engine: Tiled, phase: Phase, rows: Sequence[Row]) -> None:
        self.chain, self.layout, self.rows, self.phase = engine.chain, engine.task.layout, rows, phase
        self.trained = frozenset(chosen(self.layout, phase))
        self.lowest = next(i for i, layer in enumerate(self.chain.layers) if self.trained & {layer.weight, layer.bias})
        jobs = list({id(row.job): row.job for row in rows}.values())
        self.packed = pack([row.job for row in rows], jobs)
        x, y = engine.task.tensors(_join([job.samples for job in jobs]))
        self.x = x.flatten(1)
        self.index = torch.from_numpy(self.packed.index).to(self.x.device)
        self.used = torch.from_numpy(self.packed.places).to(self.x.device)
        width = self.layout.entries[self.chain.layers[-1].weight].shape[0]
        targets = self.chain.canonical.encode(y, width)
        self.targets = targets.to(self.x.dtype).index_select(0, self.index)
        self.clip = None if phase.clip is None else phase.clip / len(rows[0].job.local.params) ** 0.5

    def coefficients(self) -> Float[Tensor, "places"]:
        """1 / denominator of each place's batch; 0 where a place is empty."""
        divisors = self.packed.sizes
        if self.phase.denominator == "expected":
            each = [expected(self.phase, len(row.job.samples)) for row in self.rows]
            divisors = np.repeat(each, [row.steps for row in self.rows])
        values = np.zeros(len(self.packed.index))
        values[self.packed.places] = np.repeat(1 / np.maximum(divisors, 1), self.packed.sizes)
        return torch.from_numpy(values).to(device=self.x.device, dtype=self.x.dtype)

    def weights(self, groups: Sequence[int]) -> Float[Tensor, "places"]:
        """Weight of each place's record in its row's loss, for one group of each row; 0 where a place is empty."""
        values = torch.zeros(len(self.index), dtype=self.x.dtype, device=self.x.device)
        parts = [_weights(row.job, group, self.x) for row, group in zip(self.rows, groups, strict=True)]
        values[self.used] = torch.cat(parts)
        return values

    @property
    def weighted(self) -> bool:
        """Whether records have weights."""
        return self.rows[0].job.local.weights is not None

    def steps(self) -> Iterator[tuple[int, int, Float[Tensor, "active batch in"]]]:
        """(step, active rows, inputs) of every step; inputs are gathered in chunks, into one buffer."""
        batch, starts, active, first = self.packed.batch, self.packed.starts, self.packed.active, 0
        most = max(batch * active[0], _GATHERED // self.x.shape[1])
        buffer = self.x.new_empty(min(most, starts[-1]), self.x.shape[1])
        while first < len(active):
            last = first + 1
            while last < len(active) and starts[last + 1] - starts[first] <= most:
                last += 1
            index = self.index[starts[first] : starts[last]]
            chunk = torch.index_select(self.x, 0, index, out=buffer[: len(index)])
            parts = torch.split(chunk, [batch * count for count in active[first:last]])
            for step, part in enumerate(parts, first):
                yield step, active[step], part.view(active[step], batch, -1)
            first = last

    def by_step(self, values: Float[Tensor, "places *width"]) -> list[Float[Tensor, "active batch width"]]:
        """What stands at the places of each step."""
        batch, active = self.packed.batch, self.packed.active
        parts = torch.split(values, [batch * count for count in active])
        return [part.view(count, batch, -1) for part, count in zip(parts, active, strict=True)]

    def signals(
        self, stack: Stack, values: Sequence[Tensor], targets: Tensor, shares: Tensor, scale: Tensor
    ) -> list[Tensor]:
        """Of the objective, from the lowest layer that learns.

        Args:
            stack: of the active rows.
            values: of the forward pass.
            targets: encoded.
            shares: derivative of the objective by each record's loss; with clipping only its weight.
            scale: with clipping, what the clipped gradient is then multiplied by.
        """
        signals = self.chain.signals(stack, values, targets, shares, self.lowest)
        if self.clip is None:
            return signals
        norms = self.chain.record_norms(values, signals, self.trained, self.lowest)
        scale = scale * (self.clip / norms.sqrt_().clamp_min_(self.clip))
        return [signal * scale for signal in signals]

    def learning(
        self, values: Sequence[Tensor], signals: Sequence[Tensor]
    ) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """(entry, signal, input) of every parameter that learns; a bias has no input."""
        layers = self.chain.layers[self.lowest :]
        for layer, value, signal in zip(layers, values[self.lowest : -1], signals, strict=True):
            if layer.weight in self.trained:
                yield layer.weight, signal, value
            if layer.bias is not None and layer.bias in self.trained:
                yield layer.bias, signal, None


class _Apart(_Tile):
    """Rows that know nothing of one another."""

    def run(self) -> list[Tensor]:
        params = self.chain.unflatten(_stack([_group(row.job.local.params, row.group) for row in self.rows]))
        self.pull, self.rate = self.rows[0].job.local.rate * self.rows[0].signature[0], self.rows[0].job.local.rate
        anchors, drifts = self._anchors(), self._drifts()
        scale = self.coefficients() * self.rate
        shares = scale
        if self.weighted or self.clip is not None:
            weights = self.weights([row.group for row in self.rows]) if self.weighted else (scale != 0).to(scale.dtype)
            shares = weights if self.clip is not None else weights * scale
        by_step = [self.by_step(part) for part in (self.targets, shares)]
        by_step.append(by_step[1] if self.clip is None else self.by_step(scale))
        count = -1
        for step, active, x in self.steps():
            if active != count:  # views are made anew only when a row has ended
                count, now = active, [tensor[:active] for tensor in params]
                stack = self.chain.stack(now)
                ends = anchors and [tensor[:active] for tensor in anchors]
                drift = drifts and [tensor[:active] for tensor in drifts]
            values = self.chain.forward(stack, x)
            signals = self.signals(stack, values, *(part[step] for part in by_step))
            for entry, signal, value in self.learning(values, signals):
                tensor = now[entry]
                if ends:
                    tensor.lerp_(ends[entry], self.pull)
                if drift:
                    tensor.add_(drift[entry])
                if value is not None:  # the signal has the rate in it
                    tensor.baddbmm_(signal.transpose(1, 2), value, alpha=-1)
                else:
                    tensor.sub_(signal.sum(1, keepdim=True))
        return list(self.chain.flatten(params))

    def _anchors(self) -> list[Tensor]:
        """Where each row is pulled to, by entry; a single row where all are pulled to one place."""
        pulls = [(row.job.local.pull, row.group) for row in self.rows] if self.pull else []
        vectors = [_group(pull.anchor, group) for pull, group in pulls if pull is not None]
        if not vectors:
            return []
        stack = _stack(vectors)
        return self.chain.unflatten(stack[:1] if stack.stride(0) == 0 else stack)

    def _drifts(self) -> list[Tensor]:
        """What each row moves by at every step, by entry."""
        drifts = [(row.job.local.drift, row.group) for row in self.rows]
        vectors = [_group(drift, group) for drift, group in drifts if drift is not None]
        return self.chain.unflatten(_stack(vectors) * -self.rate) if vectors else []


class _Together(_Tile):
    """Clients whose groups the algorithm's `step` or `correct` updates together; rows stand for clients."""

    def run(self, algorithm: Algorithm) -> list[Tensor]:
        locals_ = [row.job.local for row in self.rows]
        params = torch.stack([local.params for local in locals_])
        extra = {name: torch.stack([local.extra[name] for local in locals_]) for name in locals_[0].extra}
        mask, shares, targets = self._mask(), self._shares(params.shape[1]), self.by_step(self.targets)
        calls: list[int] = []
        before = len(self.rows)
        for step, active, x in self.steps():
            self._end(range(active, before), extra)
            before = active
            calls.append(0)

            def gradient(at: Tensor, step: int = step, x: Tensor = x) -> Tensor:
                calls[-1] += at.shape[1]
                where = slice(self.packed.starts[step], self.packed.starts[step + 1])
                return self._gradient(at, x, targets[step], *(part[:, where] for part in shares))

            seen = {name: value[:active] for name, value in extra.items()}
            local = _stacked(locals_[:active])
            params[:active], extra = joint_update(algorithm, local, seen, params[:active], gradient, mask)
        self._end(range(before), extra)
        for local, row in zip(locals_, self.rows, strict=True):
            sizes = row.job.batches.sizes
            local.gradients += int(np.dot(sizes, calls[: len(sizes)]))
        return list(params)

    def _end(self, ended: range, extra: Mapping[str, Tensor]) -> None:
        """The tensors of clients that have no batch left are what they were after their last."""
        for position in ended:
            self.rows[position].job.local.extra = {name: value[position] for name, value in extra.items()}

    def _mask(self) -> Tensor | None:
        if len(self.trained) == len(self.layout.entries):
            return None
        mask = torch.zeros(self.layout.dimension, dtype=self.x.dtype, device=self.x.device)
        for i in self.trained:
            mask[self.layout.entries[i].span] = 1
        return mask

    def _shares(self, groups: int) -> tuple[Float[Tensor, "groups places"], Float[Tensor, "groups places"]]:
        """Shares and scale, as `signals` reads them, of each group."""
        scale = self.coefficients().expand(groups, -1)
        if self.weighted:
            weights = torch.stack([self.weights([group] * len(self.rows)) for group in range(groups)])
        else:
            weights = (scale != 0).to(scale.dtype)
        return (weights if self.clip is not None else weights * scale), scale

    def _gradient(self, at: Tensor, x: Tensor, targets: Tensor, shares: Tensor, scale: Tensor) -> Tensor:
        """Of every group of every active client, ``[active, groups, D]``."""
        active, groups = at.shape[:2]

        def spread(tensor: Tensor) -> Tensor:  # the same records for every group
            wide = tensor.view(active, 1, self.packed.batch, -1).expand(-1, groups, -1, -1)
            return wide.reshape(active * groups, self.packed.batch, -1)

        def by_row(tensor: Tensor) -> Tensor:  # [groups, places] -> [active * groups, batch, 1]
            return tensor[:groups].view(groups, active, -1).transpose(0, 1).reshape(active * groups, -1, 1)

        params = self.chain.unflatten(at.flatten(0, 1))
        stack = self.chain.stack(params)
        values = self.chain.forward(stack, spread(x))
        signals = self.signals(stack, values, spread(targets), by_row(shares), by_row(scale))
        result = [torch.zeros_like(tensor) for tensor in params]
        for entry, signal, value in self.learning(values, signals):
            if value is None:
                result[entry] = signal.sum(1, keepdim=True)
            else:
                result[entry] = torch.bmm(signal.transpose(1, 2), value)
        return self.chain.flatten(result).view(at.shape)


def _join(parts: Sequence[Samples]) -> Samples:
    if len(parts) == 1:
        return parts[0]
    x, y, index = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "index"))
    return Samples(x, y, index)


def _stack(vectors: Sequence[Tensor]) -> Float[Tensor, "rows dim"]:
    """Vectors ``[1, D]`` as rows; without a copy where all are one vector, such as a broadcast."""
    first = vectors[0]
    if all(vector.data_ptr() == first.data_ptr() for vector in vectors):
        return first.expand(len(vectors), -1)
    return torch.cat(list(vectors))


def _group(stack: Tensor, group: int) -> Float[Tensor, "one dim"]:
    """One group's vector; a single one stands for all groups."""
    rows = stack.view(-1, stack.shape[-1])
    return rows if len(rows) == 1 else rows[group : group + 1]


def _weights(job: Job, group: int, like: Tensor) -> Tensor:
    assert job.local.weights is not None, "all clients of an algorithm have weights, or none has"
    rows = torch.from_numpy(job.batches.rows).to(like.device)
    return job.local.weights[:, group].index_select(0, rows).to(like.dtype)


def _stacked(locals_: Sequence[Local]) -> Local:
    """Pull, drift and rate of several clients as of one, with a leading axis."""
    first = locals_[0]
    pulls = [local.pull for local in locals_ if local.pull is not None]
    pull = None
    if pulls:
        strengths = [torch.as_tensor(p.strength, dtype=p.anchor.dtype).reshape(-1, 1) for p in pulls]
        anchors = [p.anchor.reshape(-1, p.anchor.shape[-1]) for p in pulls]
        pull = Pull(torch.stack(strengths), torch.stack(anchors))
    drifts = [local.drift for local in locals_ if local.drift is not None]
    drift = torch.stack(drifts) if drifts else None
    return replace(first, pull=pull, drift=drift)
