from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rivage.core.errors import ConfigError
from rivage.learning.params import ParameterMap, bind, from_numpy, norm, to_numpy


class Mixed(nn.Module):
    """Trainable, frozen, saved and unsaved, floating and integer: one tensor of each sort."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.frozen = nn.Parameter(torch.full((4,), 7.0), requires_grad=False)
        self.norm = nn.BatchNorm1d(2)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("angles", torch.arange(5.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.first(x)) * self.scale


def test_order_is_trainable_then_frozen_then_buffers() -> None:
    layout = ParameterMap.of(Mixed())
    assert [entry.name for entry in layout.entries] == [
        "scale",
        "first.weight",
        "first.bias",
        "norm.weight",
        "norm.bias",
        "frozen",
        "norm.running_mean",
        "norm.running_var",
    ]
    assert layout.trainable == 1 + 6 + 2 + 2 + 2
    assert layout.dimension == layout.trainable + 4 + 2 + 2
    assert layout.buffers == ("norm.running_mean", "norm.running_var")
    assert set(layout.kept) == {"angles", "norm.num_batches_tracked"}


def test_entries_tile_the_vector() -> None:
    layout = ParameterMap.of(Mixed())
    position = 0
    for entry in layout.entries:
        assert entry.span == slice(position, position + entry.size)
        position += entry.size
    assert position == layout.dimension


SHAPES = st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(shapes=SHAPES, lead=st.lists(st.integers(0, 3), max_size=2), seed=st.integers(0, 2**32))
def test_unflatten_inverts_flatten(shapes: list[list[int]], lead: list[int], seed: int) -> None:
    """For scalars and empty tensors too, and any leading axes."""
    layout = ParameterMap.of(nn.ParameterList([torch.empty(shape) for shape in shapes]))
    generator = torch.Generator().manual_seed(seed)
    tensors = {e.name: torch.randn((*lead, *e.shape), generator=generator) for e in layout.entries}
    vector = layout.flatten(tensors)
    assert vector.shape == (*lead, layout.dimension)
    again = layout.unflatten(vector)
    assert list(again) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(again[name], tensor)
    assert torch.equal(layout.flatten(again), vector)


def test_unflatten_gives_views_and_flatten_a_copy() -> None:
    layout = ParameterMap.of(Mixed())
    vector = torch.zeros(2, layout.dimension)
    layout.unflatten(vector)["first.weight"][1] = 1
    assert vector[1, layout.entries[1].span].eq(1).all()
    assert vector[0].eq(0).all()
    tensors = layout.unflatten(vector)
    layout.flatten(tensors).fill_(9)
    assert vector.lt(9).all()


def test_bind_makes_module_and_vector_one() -> None:
    module = Mixed()
    layout = ParameterMap.of(module)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    vector = bind(module, layout)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    vector.fill_(2.0)
    assert all(parameter.eq(2).all() for parameter in module.parameters())
    assert module.norm.running_mean.eq(2).all()
    assert module.norm.num_batches_tracked == 0
    assert module.norm.num_batches_tracked.dtype == torch.int64
    with torch.no_grad():
        module.frozen.fill_(3.0)
    assert torch.equal(vector[layout.trainable : layout.trainable + 4], torch.full((4,), 3.0))


def test_training_a_bound_module_moves_the_vector() -> None:
    module = Mixed()
    layout = ParameterMap.of(module)
    vector = bind(module, layout)
    start = vector.clone()
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    module(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    assert torch.equal(vector, layout.gather(module))
    assert not torch.equal(vector[: layout.trainable], start[: layout.trainable])
    frozen = slice(layout.trainable, layout.trainable + 4)
    assert torch.equal(vector[frozen], start[frozen])
    assert not torch.equal(vector[-4:], start[-4:])  # running mean and variance
    assert module.norm.num_batches_tracked == 1


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_weights_have_one_entry_and_stay_tied() -> None:
    module = Tied()
    layout = ParameterMap.of(module)
    assert [entry.name for entry in layout.entries] == ["embedding.weight"]
    vector = bind(module, layout)
    vector.fill_(4.0)
    assert module.head.weight is module.embedding.weight
    assert module.head.weight.eq(4).all()


def test_an_lstm_sees_the_vector() -> None:
    module = nn.LSTM(2, 3, num_layers=2)
    vector = bind(module, ParameterMap.of(module))
    vector.zero_()
    assert module(torch.randn(4, 1, 2))[0].eq(0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda m: setattr(m, "view", nn.Parameter(m.first.weight.detach().t())),
            "different views of the same",
        ),
        (lambda m: [p.requires_grad_(False) for p in m.parameters()], "no trainable parameter"),
        (lambda m: setattr(m, "lazy", nn.LazyLinear(2)), "has no shape before the first batch"),
        (
            lambda m: setattr(m, "whole", nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False)),
            "torch.int64, which cannot be averaged",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_flat_is_refused(change, words) -> None:
    module = Mixed()
    change(module)
    with pytest.raises(ConfigError, match=words) as caught:
        ParameterMap.of(module)
    assert caught.value.mend


def test_json_form_round_trips_and_separates_buffers() -> None:
    layout = ParameterMap.of(Mixed())
    form = layout.as_json()
    assert form["parameters"][1] == {"name": "first.weight", "offset": 1, "shape": [2, 3]}
    assert [buffer["name"] for buffer in form["buffers"]] == list(layout.buffers)
    assert ParameterMap.from_json(json.loads(json.dumps(form))) == layout


def test_norm_keeps_the_axis() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert torch.equal(norm(vectors), torch.tensor([[5.0], [0.0]]))
    assert torch.equal(norm(vectors[0]), torch.tensor([5.0]))


def test_numpy_and_torch_share_memory() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = from_numpy(array)
    tensor[0, 0] = 9
    assert array[0, 0] == 9
    back = to_numpy(tensor)
    back[1, 1] = -1
    assert tensor[1, 1] == -1
    assert np.shares_memory(back, array)
    assert to_numpy(nn.Parameter(tensor)).shape == (2, 3)


def test_what_cannot_be_shared_is_copied() -> None:
    frozen = np.arange(4.0)
    frozen.flags.writeable = False
    from_numpy(frozen).fill_(0)
    assert frozen[3] == 3
    backwards = np.arange(4.0)[::-1]
    assert from_numpy(backwards).tolist() == [3, 2, 1, 0]
    assert from_numpy(np.arange(3), dtype=torch.float32).dtype == torch.float32
    assert from_numpy(np.array(2.5)).shape == ()


def test_a_mask_covers_what_is_named() -> None:
    layout = ParameterMap.of(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
    assert layout.mask(["1"]).tolist() == [False] * 9 + [True] * 4
    assert layout.mask(["0.bias", "1.bias"]).tolist() == [False] * 6 + [True] * 3 + [False] * 3 + [True]
    assert not layout.mask([]).any()
    with pytest.raises(ConfigError, match='no parameter is called "2"'):
        layout.mask(["0", "2"])
