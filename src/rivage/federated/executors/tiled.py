"""The stacked executor: dense chains of many clients, one batched product per layer and step.

Rows are (client, group) pairs, groups being independent models of one client. Rows are sorted by their number of steps
and cut into tiles whose parameters fit the cache. Inside a tile the rows that still have batches are always a prefix,
so ended clients cost nothing; only partial batches are padded, with records of share 0. One step of a tile is, with
all signals s_l taken at the old parameters (`rivage.federated.executors.chain`),

    W ← lerp(W, anchor, rate · strength) − rate · drift − s' a,

the update being fused into the product. With `Phase.clip` the signals of a record are scaled by min(1, clip / norm),
where the norm of its gradient comes from ‖s a'‖ = ‖s‖ ‖a‖ (ghost norms; Goodfellow, arXiv 1510.01799), and
`Phase.noise` is added to the product.

How rows are cut does not depend on the number of workers, so neither do the results.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rivage.data.population import joined
from rivage.federated.algorithm import Algorithm, Local, Phase, Pull
from rivage.federated.executors.chain import Chain, Stack
from rivage.federated.executors.jobs import Job, chosen, expected, joint_update, strength_of
from rivage.federated.executors.noise import Noise
from rivage.federated.executors.packing import pack
from rivage.learning.task import Task

__all__ = ["Row", "Tiled", "cut"]

_GATHERED = 1 << 16  # numbers of the inputs gathered at a time: they are still in the cache when used


Signature = tuple[float, bool, bool, bool, int]


class Row(NamedTuple):
    """One model of one client, and what must be alike in a tile: pull's strength; if pull, drift, weights; groups."""

    job: Job
    group: int
    steps: int
    signature: Signature


def cut(jobs: Sequence[Job], row_bytes: int, tile_bytes: int, *, joint: bool) -> list[list[Row]]:
    """Tiles of rows, each sorted by falling number of steps.

    Args:
        jobs: their batches are set.
        row_bytes: parameters of one model.
        tile_bytes: parameters of a tile, at most, unless one row is larger.
        joint: the groups of a client stay together, and only the first stands for all of them.
    """
    rows = [row for job in jobs if len(job.batches.sizes) for row in _rows(job, joint=joint)]
    rows.sort(key=lambda row: (row.signature, -row.steps))
    tiles: list[list[Row]] = []
    for _, alike in groupby(rows, key=attrgetter("signature")):
        members = list(alike)
        size = row_bytes * (len(members[0].job.local.params) if joint else 1)
        count = math.ceil(len(members) / max(1, tile_bytes // size))
        bounds = [len(members) * i // count for i in range(count + 1)]
        tiles += [members[a:b] for a, b in pairwise(bounds)]
    return tiles


def _rows(job: Job, *, joint: bool) -> Iterator[Row]:
    local, steps, groups = job.local, len(job.batches.sizes), job.local.params.shape[0]
    given = local.pull is not None, local.drift is not None, local.weights is not None, groups
    for group in range(1 if joint else groups):
        yield Row(job, group, steps, (strength_of(local, group), *given))


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
        x, y = engine.task.tensors(joined([job.samples for job in jobs]))
        self.x = x.flatten(1)
        self.index = torch.from_numpy(self.packed.index).to(self.x.device)
        self.used = torch.from_numpy(self.packed.places).to(self.x.device)
        width = self.layout.entries[self.chain.layers[-1].weight].shape[0]
        targets = self.chain.canonical.encode(y, width)
        self.targets = targets.to(self.x.dtype).index_select(0, self.index)
        self.clip = None if phase.clip is None else phase.clip / len(rows[0].job.local.params) ** 0.5

    def noises(self, members: Sequence[tuple[Row, int]]) -> list[Noise]:
        """That of some (row, group), shaped as `Chain.unflatten` shapes parameters; none for phases without noise."""
        if self.phase.noise is None:
            return []
        shapes = [self.layout.entries[i].shape for i in sorted(self.trained)]
        shapes = [shape if len(shape) > 1 else (1, *shape) for shape in shapes]
        return [Noise(self.phase, row.job, group, shapes, like=self.x) for row, group in members]

    def drawn(self, noises: Sequence[Noise]) -> Iterator[tuple[int, Tensor]]:
        """(entry, noise of the next gradient of each) of every parameter that learns."""
        parts = [noise.draw() for noise in noises]
        for entry, stack in zip(sorted(self.trained), zip(*parts, strict=True), strict=False):
            yield entry, torch.stack(stack)

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

    def steps(self, *values: Float[Tensor, "places *width"]) -> Iterator[tuple[Tensor, ...]]:
        """Inputs and parts of ``values`` of every step, each ``[active, batch, …]``; inputs are gathered in chunks."""
        batch, starts, active, first = self.packed.batch, self.packed.starts, self.packed.active, 0
        parts = [torch.split(value.view(starts[-1] // batch, batch, -1), active) for value in values]
        most = max(batch * active[0], _GATHERED // self.x.shape[1])
        buffer = self.x.new_empty(min(most, starts[-1]), self.x.shape[1])
        while first < len(active):
            last = bisect_right(starts, starts[first] + most) - 1
            index = self.index[starts[first] : starts[last]]
            chunk = torch.index_select(self.x, 0, index, out=buffer[: len(index)])
            inputs = torch.split(chunk.view(-1, batch, self.x.shape[1]), active[first:last])
            yield from zip(inputs, *(part[first:last] for part in parts), strict=True)
            first = last

    def signals(
        self, stack: Stack, values: list[Tensor], targets: Tensor, shares: Tensor, scale: Tensor | None = None
    ) -> list[Tensor]:
        """Of the objective, from the lowest layer that learns.

        Under noise records whose gradient is not finite leave ``values``, too: in the noisy sum they would be seen.

        Args:
            stack: of the active rows.
            values: of the forward pass.
            targets: encoded.
            shares: derivative of the objective by each record's loss; with clipping only its weight.
            scale: what a clipped gradient is then multiplied by; only for clipping.
        """
        signals = self.chain.signals(stack, values, targets, shares, self.lowest)
        if self.clip is None or scale is None:
            return signals
        norms = self.chain.record_norms(values, signals, self.trained, self.lowest)
        if self.phase.noise is not None and not (good := norms.isfinite()).all():
            values[:] = [value.where(good, 0) for value in values]  # not in place: a record may be read again
            signals, norms = [signal.where(good, 0) for signal in signals], norms.where(good, 0)
        scale = scale * (self.clip / norms.sqrt_().clamp_min_(self.clip))
        return [signal * scale for signal in signals]

    def ones(self, rows: int) -> Float[Tensor, "rows one batch"]:
        """What sums signals over a batch, as a product."""
        return self.x.new_ones(1).expand(rows, 1, self.packed.batch)

    def learning(
        self, values: Sequence[Tensor], signals: Sequence[Tensor], ones: Float[Tensor, "rows one batch"]
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(entry, left, right) of every parameter that learns: its gradient is the product of left and right."""
        layers = self.chain.layers[self.lowest :]
        for layer, value, signal in zip(layers, values[self.lowest : -1], signals, strict=True):
            if layer.weight in self.trained:
                yield layer.weight, signal.transpose(1, 2), value
            if layer.bias is not None and layer.bias in self.trained:
                yield layer.bias, ones, signal


class _Apart(_Tile):
    """Rows that know nothing of one another."""

    def run(self) -> list[Float[Tensor, "one dim"]]:
        with torch.inference_mode():  # a tenth cheaper per operation than no_grad; what is made in it must not leave
            params = self._learnt()
        return list(torch.split(self.chain.flatten(params), 1))

    def _learnt(self) -> list[Tensor]:
        params = self.chain.unflatten(_stack([(row.job.local.params, row.group) for row in self.rows]))
        self.pull, self.rate = self.rows[0].job.local.rate * self.rows[0].signature[0], self.rows[0].job.local.rate
        anchors, drifts = self._anchors(), self._drifts()
        scale = self.coefficients() * self.rate
        shares = scale
        if self.weighted or self.clip is not None:
            weights = self.weights([row.group for row in self.rows]) if self.weighted else (scale != 0).to(scale.dtype)
            shares = weights if self.clip is not None else weights * scale
        by_place = [self.targets, shares] if self.clip is None else [self.targets, shares, scale]
        noises, active = self.noises([(row, row.group) for row in self.rows]), -1
        for x, *given in self.steps(*by_place):
            if x.shape[0] != active:  # views are made anew only when a row has ended
                active = x.shape[0]
                now, ends, drift = ([tensor[:active] for tensor in each] for each in (params, anchors, drifts))
                stack, ones = self.chain.stack(now), self.ones(active)
            values = self.chain.forward(stack, x)
            signals = self.signals(stack, values, *given)
            for entry, left, right in self.learning(values, signals, ones):
                tensor = now[entry]
                if ends:
                    tensor.lerp_(ends[entry], self.pull)
                if drift:
                    tensor.add_(drift[entry])
                tensor.baddbmm_(left, right, alpha=-1)  # the signal has the rate in it
            for entry, noise in self.drawn(noises[:active]):
                now[entry].add_(noise, alpha=-self.rate)
        return params

    def _anchors(self) -> list[Tensor]:
        """Where each row is pulled to, by entry; a single row where all are pulled to one place."""
        if not self.pull:
            return []
        pulls = [(row.job.local.pull, row.group) for row in self.rows]
        stack = _stack([(pull.anchor, group) for pull, group in pulls if pull is not None])
        return self.chain.unflatten(stack[:1] if stack.stride(0) == 0 else stack)

    def _drifts(self) -> list[Tensor]:
        """What each row moves by at every step, by entry."""
        drifts = [(row.job.local.drift, row.group) for row in self.rows]
        vectors = [(drift, group) for drift, group in drifts if drift is not None]
        return self.chain.unflatten(_stack(vectors) * -self.rate) if vectors else []


class _Together(_Tile):
    """Clients whose groups the algorithm's `step` or `correct` updates together; rows stand for clients."""

    def run(self, algorithm: Algorithm) -> list[Tensor]:
        locals_ = [row.job.local for row in self.rows]
        now = torch.stack([local.params for local in locals_])
        extra = {name: torch.stack([local.extra[name] for local in locals_]) for name in locals_[0].extra}
        mask, calls, before = self._mask(), list[int](), len(self.rows)
        self.noise = [self.noises([(row, group) for group in range(now.shape[1])]) for row in self.rows]
        local = _stacked(locals_)
        for given in self.steps(self.targets, *self._shares(now.shape[1])):
            calls.append(0)

            def gradient(at: Tensor, given: tuple[Tensor, ...] = given) -> Tensor:
                calls[-1] += at.shape[1]
                return self._gradient(at, *given)

            active = len(given[0])
            if active != before:
                self._end(range(active, before), now, extra)
                before, local = active, _stacked(locals_[:active])
                extra = {name: value[:active] for name, value in extra.items()}
            # A step may keep what it was given, so nothing is written over: `now` is another tensor after each.
            now, extra = joint_update(algorithm, local, extra, now[:active], gradient, mask)
        self._end(range(before), now, extra)
        for local, row in zip(locals_, self.rows, strict=True):
            sizes = row.job.batches.sizes
            local.gradients += int(np.dot(sizes, calls[: len(sizes)]))
        return [local.params for local in locals_]

    def _end(self, ended: range, params: Tensor, extra: Mapping[str, Tensor]) -> None:
        """The tensors of clients that have no batch left are what they were after their last."""
        for position in ended:
            local = self.rows[position].job.local
            local.params, local.extra = params[position], {name: value[position] for name, value in extra.items()}

    def _mask(self) -> Tensor | None:
        if len(self.trained) == len(self.layout.entries):
            return None
        mask = torch.zeros(self.layout.dimension, dtype=self.x.dtype, device=self.x.device)
        for i in self.trained:
            mask[self.layout.entries[i].span] = 1
        return mask

    def _shares(self, groups: int) -> tuple[Float[Tensor, "places groups"], Float[Tensor, "places groups"]]:
        """Shares and scale, as `signals` reads them, of each group."""
        scale = self.coefficients()[:, None].expand(-1, groups)
        if self.weighted:
            weights = torch.stack([self.weights([group] * len(self.rows)) for group in range(groups)], dim=1)
        else:
            weights = (scale != 0).to(scale.dtype)
        return (weights if self.clip is not None else weights * scale), scale

    def _gradient(self, at: Tensor, x: Tensor, targets: Tensor, shares: Tensor, scale: Tensor) -> Tensor:
        """Of every group of every active client, ``[active, groups, D]``."""
        active, groups = at.shape[:2]

        def spread(tensor: Tensor) -> Tensor:  # the same records for every group
            wide = tensor.view(active, 1, self.packed.batch, -1).expand(-1, groups, -1, -1)
            return wide.reshape(active * groups, self.packed.batch, -1)

        def by_row(tensor: Tensor) -> Tensor:  # [active, batch, groups] -> [active * groups, batch, 1]
            return tensor[..., :groups].transpose(1, 2).reshape(active * groups, -1, 1)

        params = self.chain.unflatten(at.flatten(0, 1))
        stack = self.chain.stack(params)
        values = self.chain.forward(stack, spread(x))
        signals = self.signals(stack, values, spread(targets), by_row(shares), by_row(scale))
        result = [torch.zeros_like(tensor) for tensor in params]
        for entry, left, right in self.learning(values, signals, self.ones(active * groups)):
            result[entry] = torch.bmm(left, right)
        for entry, noise in self.drawn([noise for own in self.noise[:active] for noise in own[:groups]]):
            result[entry] += noise
        return self.chain.flatten(result).view(at.shape)


def _stack(members: Sequence[tuple[Tensor, int]]) -> Float[Tensor, "rows dim"]:
    """The vector of each (vectors by group, group) as a row; without a copy where all are one, such as a broadcast.

    A single vector, ``[D]`` or ``[1, D]``, stands for all groups.
    """
    first, width = members[0][0], members[0][0].shape[-1]
    if first.numel() == width and all(vectors.data_ptr() == first.data_ptr() for vectors, _ in members):
        return first.reshape(1, width).expand(len(members), -1)
    own = [(vectors.reshape(-1, width), group) for vectors, group in members]
    return torch.stack([vectors[group if len(vectors) > 1 else 0] for vectors, group in own])


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
