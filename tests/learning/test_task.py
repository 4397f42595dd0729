from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from rivage.core.errors import ConfigError
from rivage.data.population import Samples, Schema
from rivage.learning import LOSSES, METRICS, Task, TaskSettings, make_task
from rivage.learning.networks import mlp

CLASSES = Schema(input_shape=(6,), target="class", num_classes=3)
PAIR = Schema(input_shape=(6,), target="class", num_classes=2)
REALS = Schema(input_shape=(6,), target="real", num_outputs=2)
IMAGES = Schema(input_shape=(1, 8, 8), target="class", num_classes=3)
TOKENS = Schema(input_shape=(7,), target="tokens", num_classes=11)


class Net(nn.Module):
    """Batch norm, dropout and a counter: all that a module may bring besides weights."""

    def __init__(self, schema: Schema, drop: float = 0.5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(schema.input_shape[0], momentum=None)
        self.drop = nn.Dropout(drop)
        self.head = nn.Linear(schema.input_shape[0], schema.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.norm(x)))


def task_of(schema: Schema = CLASSES, net: object = None, dtype: torch.dtype = torch.float32, **names: object) -> Task:
    return make_task(TaskSettings(**names), schema, dtype=dtype, model=net)


def batch(schema: Schema, n: int = 5, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    index = np.arange(n)
    if schema.target == "tokens":
        tokens = rng.integers(0, schema.num_classes, (2, n, *schema.input_shape))
        return Samples(tokens[0], tokens[1], index)
    x = rng.normal(size=(n, *schema.input_shape)).astype(np.float32)
    if schema.target == "real":
        return Samples(x, rng.normal(size=(n, schema.num_outputs)).astype(np.float32), index)
    return Samples(x, rng.integers(0, schema.num_classes, n), index)


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        (CLASSES, ("linear", "cross_entropy", "accuracy")),
        (REALS, ("linear", "squared", "mae")),
        (TOKENS, ("char_lstm", "next_character", "accuracy")),
    ],
)
def test_defaults_follow_the_target(schema: Schema, names: tuple[str, str, str]) -> None:
    resolved = TaskSettings().resolved(schema)
    assert (resolved.model, resolved.loss, resolved.metric) == names
    assert TaskSettings(metric="macro_f1").resolved(CLASSES).metric == "macro_f1"
    assert resolved.resolved(schema) == resolved


@pytest.mark.parametrize(
    ("schema", "settings"),
    [
        (CLASSES, {"model": "mlp", "options": {"hidden": [4]}}),
        (PAIR, {"loss": "logistic", "metric": "auroc"}),
        (REALS, {"metric": "rmse"}),
        (IMAGES, {"model": "cnn", "options": {"channels": [4], "hidden": 8}}),
        (IMAGES, {"model": "resnet", "options": {"channels": [8]}}),
        (TOKENS, {"options": {"hidden": 8, "layers": 1}}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_built_in_task_trains_and_predicts(schema: Schema, settings: dict, dtype: torch.dtype) -> None:
    task = task_of(schema, dtype=dtype, **settings)
    bound, samples = task.bind(), batch(schema)
    bound.load(task.initial(1))
    x, y = task.tensors(samples)
    losses = bound.losses(x, y)
    assert losses.shape == (5,)
    assert losses.dtype == dtype
    gradients = torch.autograd.grad(losses.mean(), bound.parameters)
    torch._foreach_add_([p.data for p in bound.parameters], gradients, alpha=-0.05)
    assert bound.losses(x, y).mean() < losses.mean()
    predictions = bound.predictions(x)
    assert not predictions.requires_grad
    torch.testing.assert_close(task.loss.of_predictions(predictions, y), bound.losses(x, y))
    value = task.metric.of_client(predictions.numpy(), samples.y)
    assert value is None or np.isfinite(value)


def test_gradient_agrees_with_finite_differences() -> None:
    task = task_of(net=mlp, dtype=torch.float64, options={"hidden": [3]})
    bound, (x, y) = task.bind(), task.tensors(batch(CLASSES))
    start = task.initial(0)
    bound.load(start)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(bound.losses(x, y).sum(), bound.parameters)])

    def loss(vector: torch.Tensor) -> float:
        bound.load(vector)
        with torch.no_grad():
            return float(bound.losses(x, y).sum())

    step = 1e-6
    for i in range(0, task.layout.trainable, 5):
        move = torch.zeros_like(start)
        move[i] = step
        slope = (loss(start + move) - loss(start - move)) / (2 * step)
        assert slope == pytest.approx(float(gradient[i]), abs=1e-7)


def test_initial_depends_on_the_seed_alone() -> None:
    task = task_of(net=mlp)
    first = task.initial(5)
    torch.rand(100)
    assert torch.equal(first, task.initial(5))
    assert torch.equal(first, task_of(net=mlp).initial(5))
    assert not torch.equal(first, task.initial(6))
    assert torch.equal(task.initial(2**64 - 1), task.initial(2**64 - 1))
    assert torch.equal(task_of(net=mlp, dtype=torch.float64).initial(5), first.double())


def test_global_generators_are_left_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    task = task_of(net=Net)
    task.initial(3)
    task.bind().predictions(torch.zeros(2, 6))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_bound_copies_are_independent() -> None:
    task = task_of()
    one, two = task.bind(), task.bind()
    one.vector.fill_(1.0)
    two.vector.fill_(2.0)
    assert all(parameter.eq(1).all() for parameter in one.parameters)
    assert task.initial(0).lt(1).all()


def test_parameters_are_views_in_layout_order() -> None:
    task = task_of(net=Net)
    bound = task.bind()
    entries = [entry for entry in task.layout.entries if entry.offset < task.layout.trainable]
    for entry, parameter in zip(entries, bound.parameters, strict=True):
        assert parameter.data_ptr() == bound.vector[entry.span].data_ptr()
        assert tuple(parameter.shape) == entry.shape
    assert sum(parameter.numel() for parameter in bound.parameters) == task.layout.trainable


def test_load_forgets_what_other_clients_left() -> None:
    """With momentum None, batch norm averages over all batches that its integer counter saw."""
    task = task_of(net=Net)
    start, (x, y) = task.initial(0), task.tensors(batch(CLASSES))
    fresh, used = task.bind(), task.bind()
    used.losses(x + 3, y)
    used.losses(x - 1, y)
    for bound in (fresh, used):
        bound.load(start)
        bound.losses(x, y)
    assert torch.equal(fresh.vector, used.vector)
    assert not torch.equal(fresh.vector[-12:], start[-12:])


def test_predictions_use_evaluation_mode_and_put_the_mode_back() -> None:
    bound = task_of(net=Net).bind()
    x = torch.randn(4, 6)
    before = bound.vector.clone()
    assert torch.equal(bound.predictions(x), bound.predictions(x))
    assert torch.equal(bound.vector, before)
    assert bound.module.training
    bound.module.eval()
    bound.predictions(x)
    assert not bound.module.training


def test_a_task_knows_whether_training_draws_random_numbers() -> None:
    assert task_of(net=Net).bind().stochastic
    assert not task_of(net=Net, options={"drop": 0.0}).stochastic
    assert not task_of().stochastic


def test_tensors_share_memory_where_they_can() -> None:
    task, samples = task_of(), batch(CLASSES)
    x, y = task.tensors(samples)
    assert x.numpy().base is samples.x or np.shares_memory(x.numpy(), samples.x)
    assert np.shares_memory(y.numpy(), samples.y)
    assert task_of(dtype=torch.float64).tensors(samples)[0].dtype == torch.float64
    images = Samples(np.zeros((2, 6), np.uint8), np.zeros(2, np.int32), np.arange(2))
    x, y = task.tensors(images)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)


def test_a_single_real_gets_its_axis() -> None:
    schema = Schema(input_shape=(2,), target="real", num_outputs=1)
    samples = Samples(np.zeros((3, 2), np.float32), np.arange(3, dtype=np.float32), np.arange(3))
    assert task_of(schema).tensors(samples)[1].shape == (3, 1)
    assert task_of(TOKENS, options={"hidden": 4}).tensors(batch(TOKENS))[0].dtype == torch.int64


def test_a_task_survives_pickling() -> None:
    task = make_task(TaskSettings(model="mlp", options={"hidden": [4]}), CLASSES, dtype=torch.float64)
    again = pickle.loads(pickle.dumps(task))
    assert again.layout == task.layout
    assert again.dtype == torch.float64
    assert torch.equal(again.initial(3), task.initial(3))


class Wide(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 4)


class Squeezed(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).squeeze(-1)


class Tuple(Wide):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (super().forward(x),)


class Replaces(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 3)
        self.register_buffer("average", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if self.training:
            self.average = 0.9 * self.average + y.mean(0)
        return y


def _breaks(schema: Schema) -> nn.Module:
    raise RuntimeError("no such weights")


def _no_module(schema: Schema) -> int:
    return 3


@pytest.mark.parametrize(
    ("schema", "model", "names", "message"),
    [
        (
            CLASSES,
            Wide,
            {},
            'task.model: its output for 2 records is (2, 4), loss "cross_entropy" reads (2, 3). '
            "Make its last layer put out 3 numbers, as one tensor with no axis dropped.",
        ),
        (
            PAIR,
            Squeezed,
            {"loss": "logistic"},
            'task.model: its output for 2 records is (2,), loss "logistic" reads (2, 1). '
            "Make its last layer put out 1 numbers, as one tensor with no axis dropped.",
        ),
        (
            CLASSES,
            Tuple,
            {},
            'task.model: its output for 2 records is tuple, loss "cross_entropy" reads (2, 3). '
            "Make its last layer put out 3 numbers, as one tensor with no axis dropped.",
        ),
        (
            CLASSES,
            Replaces,
            {},
            'task.model: it replaces buffer "average" while training. Write to it in place: self.average.copy_(…).',
        ),
        (
            IMAGES,
            Wide,
            {},
            "task.model: it fails on inputs of shape (2, 1, 8, 8) (RuntimeError: mat1 and mat2 shapes cannot be "
            "multiplied (16x8 and 6x4)). Make it accept what the schema of the data says, or choose another model.",
        ),
        (
            CLASSES,
            _breaks,
            {},
            "task.model: it cannot be built (RuntimeError: no such weights). "
            "Make it accept what the schema of the data says, or choose another model.",
        ),
        (
            CLASSES,
            _no_module,
            {},
            "task.model: the model is a int, not a torch module. Return an nn.Module.",
        ),
        (
            CLASSES,
            nn.Identity,
            {},
            "task.model: the model has no trainable parameter. Leave requires_grad=True on some of them.",
        ),
        (
            CLASSES,
            None,
            {"loss": "squared"},
            'task.loss: loss "squared" is for targets of kind real, not class. Use cross_entropy, or leave loss out.',
        ),
        (
            REALS,
            None,
            {"metric": "accuracy"},
            'task.metric: metric "accuracy" is for targets of kind class or tokens, not real. '
            "Use mae, or leave metric out.",
        ),
        (
            CLASSES,
            None,
            {"metric": "auroc"},
            'task.metric: metric "auroc" is for two classes, the target has 3. Use balanced_accuracy.',
        ),
        (
            CLASSES,
            None,
            {"loss": "logistic"},
            'task.loss: loss "logistic" is for two classes, the target has 3. Use cross_entropy.',
        ),
        (
            CLASSES,
            None,
            {"model": "cnn"},
            "task.model: cnn reads images (channels, height, width) of at least 4 × 4, an input has shape (6,). "
            "Use mlp, or give the inputs that shape.",
        ),
        (
            CLASSES,
            None,
            {"metric": "acuracy"},
            'task.metric: unknown metric kind "acuracy". Did you mean "accuracy"?',
        ),
        (
            CLASSES,
            None,
            {"model": "my_pkg.nets:Net"},
            "task.model: cannot import \"my_pkg.nets\" (No module named 'my_pkg'). "
            "Check the spelling, or add the folder that holds it to PYTHONPATH.",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(schema, model, names, message) -> None:
    with pytest.raises(ConfigError) as caught:
        task_of(schema, model, **names)
    assert str(caught.value) == message


def test_a_metric_that_cannot_read_the_predictions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"task.metric: c_index got predictions of shape \(2, 2\)"):
        task_of(REALS, metric="c_index")


def test_a_double_precision_model_follows_the_run() -> None:
    task = task_of(net=lambda schema: Net(schema).double())
    assert task.initial(0).dtype == torch.float32
    assert task.bind().losses(torch.randn(3, 6), torch.zeros(3, dtype=torch.int64)).dtype == torch.float32


def test_a_task_can_be_made_by_hand() -> None:
    task = Task(mlp, LOSSES.get("cross_entropy"), METRICS.get("accuracy"), CLASSES)
    assert task.dimension == task.layout.trainable == 6 * 64 + 64 + 64 * 3 + 3


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, rivage.learning, rivage.learning.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_gives_its_names_and_no_others() -> None:
    import rivage.learning as package

    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Taks'"):
        _ = package.Taks


@pytest.mark.parametrize(
    ("schema", "model", "names", "width"),
    [
        (CLASSES, {"model": "linear"}, ("0.weight", "0.bias"), (6,)),
        (CLASSES, {"model": "mlp", "options": {"hidden": [5, 4]}}, ("4.weight", "4.bias"), (4,)),
        (IMAGES, {"model": "cnn", "options": {"hidden": 7}}, ("9.weight", "9.bias"), (7,)),
        (TOKENS, {"model": "char_lstm", "options": {"hidden": 9}}, ("head.weight", "head.bias"), (7, 9)),
        (CLASSES, {"net": Net}, ("head.weight", "head.bias"), (6,)),
        (CLASSES, {"net": lambda schema: nn.Linear(6, 3, bias=False)}, ("weight",), (6,)),
    ],
)
def test_the_head_on_the_features_is_the_model(schema: Schema, model: dict, names: tuple, width: tuple) -> None:
    task = task_of(schema, dtype=torch.float64, **model)
    assert task.head == names
    bound = task.bind()
    bound.load(task.initial(3))
    x = task.inputs(batch(schema).x)
    found = bound.features(x)
    assert found.shape == (5, *width)
    assert bound.module.training
    parts = dict(bound.module.named_parameters())
    outputs = torch.nn.functional.linear(found, *(parts[name] for name in names))
    torch.testing.assert_close(task.loss.predict(outputs), bound.predictions(x))


class Tied(nn.Module):
    """Its head has the weight of the layer before, which is called twice."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.square = nn.Linear(6, 6)
        self.head = nn.Linear(6, 6)
        self.head.weight = self.square.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.head(self.square(x)).tanh())[:, :3]


def test_a_tied_head_has_its_names_in_the_layout_and_the_last_call_counts() -> None:
    task = task_of(CLASSES, Tied, dtype=torch.float64)
    assert task.head == ("square.weight", "head.bias")
    assert int(task.layout.mask(task.head).sum()) == 36 + 6
    bound = task.bind()
    x = task.inputs(batch(CLASSES).x)
    found = bound.module.head(bound.features(x))[:, :3]
    torch.testing.assert_close(task.loss.predict(found), bound.predictions(x))


def test_a_model_without_a_linear_layer_has_no_head() -> None:
    net = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 6), nn.Flatten())
    task = task_of(CLASSES, lambda schema: net)
    with pytest.raises(ConfigError, match="no linear layer"):
        _ = task.head
