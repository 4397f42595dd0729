"""Reference networks, and how a model is made from its name.

Every network is a function of the `Schema` and its options; sizes that the schema determines are not options.
Layers have torch's default initialisation. Models made of dense chains are plain ``nn.Sequential``, which
executors can read.

A user's own model is named ``"my_pkg.nets:Net"``, see `factory`.

References:
    McMahan, Moore, Ramage, Hampson, Agüera y Arcas. Communication-efficient learning of deep networks from
    decentralized data. AISTATS 2017, arXiv 1602.05629, section 3 (2NN, CNN, character LSTM).
    He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016, arXiv 1512.03385.
    Wu, He. Group normalization. ECCV 2018, arXiv 1803.08494.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import pad

from rivage.core.errors import ConfigError, nearest
from rivage.core.registry import Registry, locate
from rivage.data.population import Schema

__all__ = [
    "MODELS",
    "CharGRU",
    "CharLSTM",
    "CharNgram",
    "Factory",
    "char_gru",
    "char_lstm",
    "char_ngram",
    "cnn",
    "factory",
    "find",
    "linear",
    "mlp",
    "resnet",
]

_PRIME, _MULTIPLIER = (1 << 31) - 1, 48_271  # of the hash of n-grams; their product fits 64 bits


def linear(schema: Schema, *, outputs: int | None = None) -> nn.Module:
    """One dense layer: softmax or linear regression, by the loss.

    Args:
        schema: inputs of any shape are flattened.
        outputs: numbers per record; by default the classes or real outputs of the schema.
    """
    return mlp(schema, hidden=(), outputs=outputs)


def mlp(schema: Schema, *, hidden: Sequence[int] = (64,), outputs: int | None = None) -> nn.Module:
    """Dense layers with ReLU between them; ``hidden = (200, 200)`` is the 2NN of McMahan et al.

    Args:
        schema: inputs of any shape are flattened.
        hidden: widths of the hidden layers, each >= 1.
        outputs: numbers per record; by default the classes or real outputs of the schema.
    """
    _require_sizes(hidden=hidden)
    widths = [math.prod(schema.input_shape), *hidden, _width(schema, outputs)]
    layers: list[nn.Module] = [nn.Flatten()] if len(schema.input_shape) != 1 else []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(
    schema: Schema,
    *,
    channels: Sequence[int] = (32, 64),
    hidden: int = 512,
    outputs: int | None = None,
) -> nn.Module:
    """The CNN of McMahan et al.: 5×5 convolutions with ReLU and 2×2 max-pooling, one dense layer.

    1,663,370 parameters for 28×28 grey images of 10 classes.

    Args:
        schema: images (channels, height, width), each side at least 2 per convolution.
        channels: outputs of the convolutions, which keep height and width.
        hidden: width of the dense layer.
        outputs: numbers per record; by default the classes or real outputs of the schema.
    """
    _require_sizes(channels=channels)
    _require_size(hidden=hidden)
    depth, height, width = _image(schema, "cnn", smallest=2 ** len(channels))
    layers: list[nn.Module] = []
    for count in channels:
        layers += [nn.Conv2d(depth, count, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        depth, height, width = count, height // 2, width // 2
    dense = nn.Linear(depth * height * width, hidden)
    return nn.Sequential(*layers, nn.Flatten(), dense, nn.ReLU(), nn.Linear(hidden, _width(schema, outputs)))


class CharLSTM(nn.Module):
    """Predicts the symbol after every position of a sequence: embedding, stacked LSTM, one dense layer.

    Args:
        symbols: size of the vocabulary.
        embedding: width of a symbol's vector.
        hidden: width of the LSTM's state.
        layers: LSTMs on top of each other.
    """

    def __init__(self, symbols: int, *, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, tokens: Int64[Tensor, "n length"]) -> Float[Tensor, "n length symbols"]:
        """Logits of the next symbol."""
        states, _ = self.lstm(self.embedding(tokens))
        logits: Tensor = self.head(states)
        return logits


def char_lstm(schema: Schema, *, embedding: int = 8, hidden: int = 256, layers: int = 2) -> nn.Module:
    """The character LSTM of McMahan et al.: embedding of 8, two layers of 256 units.

    With V symbols it has 8V (embedding) + 798,720 (LSTM, two bias vectors per layer) + 257V (dense layer)
    parameters: 822,570 at V = 90. The count remembered from the paper is 866,578; no V gives it, neither with
    two bias vectors per layer nor with one. V = 256 comes closest, with 866,560.

    Args:
        schema: sequences of tokens.
        embedding: width of a symbol's vector.
        hidden: width of the LSTM's state.
        layers: LSTMs on top of each other.
    """
    _require_size(embedding=embedding, hidden=hidden, layers=layers)
    return CharLSTM(_symbols(schema, "char_lstm"), embedding=embedding, hidden=hidden, layers=layers)


class CharGRU(nn.Module):
    """Predicts the symbol after every position of a sequence: embedding, stacked GRU, one dense layer.

    Args:
        symbols: size of the vocabulary.
        embedding: width of a symbol's vector.
        hidden: width of the GRU's state.
        layers: GRUs on top of each other.
    """

    def __init__(self, symbols: int, *, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.gru = nn.GRU(embedding, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, tokens: Int64[Tensor, "n length"]) -> Float[Tensor, "n length symbols"]:
        """Logits of the next symbol."""
        states, _ = self.gru(self.embedding(tokens))
        logits: Tensor = self.head(states)
        return logits


def char_gru(schema: Schema, *, embedding: int = 8, hidden: int = 128, layers: int = 1) -> nn.Module:
    """A small recurrent model of characters.

    Args:
        schema: sequences of tokens.
        embedding: width of a symbol's vector.
        hidden: width of the GRU's state.
        layers: GRUs on top of each other.
    """
    _require_size(embedding=embedding, hidden=hidden, layers=layers)
    return CharGRU(_symbols(schema, "char_gru"), embedding=embedding, hidden=hidden, layers=layers)


class CharNgram(nn.Module):
    """Predicts the symbol after every position from the last few alone: a vector for each n-gram, their sum, softmax.

    Every order k = 1 … n has a table of vectors of its own, in which the k symbols that end at a position are looked
    up: single symbols by themselves, longer n-grams by a hash, so that some share a vector. Before the beginning of a
    sequence stands a symbol that is none of the vocabulary. There is nothing recurrent: all positions are computed at
    once.

    Args:
        symbols: size of the vocabulary.
        order: n, symbols that a prediction looks at.
        buckets: vectors for the n-grams of each order above 1.
        width: of the vectors.
    """

    def __init__(self, symbols: int, *, order: int, buckets: int, width: int) -> None:
        super().__init__()
        self.symbols, self.buckets = symbols, buckets
        sizes = [symbols, *[buckets] * (order - 1)]
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.head = nn.Linear(width, symbols)

    def forward(self, tokens: Int64[Tensor, "n length"]) -> Float[Tensor, "n length symbols"]:
        """Logits of the next symbol."""
        codes = tokens
        vectors: Tensor = self.tables[0](codes)
        for distance, table in enumerate(list(self.tables)[1:], 1):
            earlier = pad(tokens, (distance, 0), value=self.symbols)[:, : tokens.shape[1]]
            codes = (codes * _MULTIPLIER + earlier + 1) % _PRIME
            vectors = vectors + table(codes % self.buckets)
        logits: Tensor = self.head(vectors)
        return logits


def char_ngram(schema: Schema, *, order: int = 3, buckets: int = 2048, width: int = 32) -> nn.Module:
    """A fast model of characters: a softmax over sums of the vectors of hashed n-grams.

    Its step size is large, 5 to 10: few records touch a vector.

    Args:
        schema: sequences of tokens.
        order: symbols that a prediction looks at, >= 1; 1 is a table of what follows each symbol.
        buckets: vectors for the n-grams of each order above 1.
        width: of the vectors, which is the rank of the model.
    """
    _require_size(order=order, buckets=buckets, width=width)
    return CharNgram(_symbols(schema, "char_ngram"), order=order, buckets=buckets, width=width)


def _symbols(schema: Schema, name: str) -> int:
    if schema.target != "tokens":
        raise ConfigError(f"{name} predicts tokens, the target is {schema.target}", mend="Use mlp, or linear.")
    return schema.num_classes


class _Block(nn.Module):
    """Two 3×3 convolutions with group norm beside a shortcut, which is 1×1 where the shape changes."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(groups, fan_out),
            nn.ReLU(),
            nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False),
            nn.GroupNorm(groups, fan_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(fan_in, fan_out, 1, stride=stride, bias=False), nn.GroupNorm(groups, fan_out)
            )

    def forward(self, x: Float[Tensor, "n fan_in height width"]) -> Float[Tensor, "n fan_out h w"]:
        result: Tensor = (self.body(x) + self.shortcut(x)).relu()
        return result


def resnet(
    schema: Schema,
    *,
    channels: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
    groups: int = 8,
    outputs: int | None = None,
) -> nn.Module:
    """A residual network for small images, with group norm.

    Group norm looks at one record at a time: unlike batch norm it has no statistics that mix clients, and it
    works under per-record clipping.

    Args:
        schema: images (channels, height, width), each side at least 2 per stage after the first.
        channels: width of each stage, a multiple of ``groups``; every stage after the first halves the image.
        blocks: residual blocks per stage; 1 gives 8 layers with three stages, 3 gives 20.
        groups: groups of the norm.
        outputs: numbers per record; by default the classes or real outputs of the schema.
    """
    _require_sizes(channels=channels)
    _require_size(blocks=blocks, groups=groups)
    if not channels or any(count % groups for count in channels):
        raise ConfigError(
            f"channels {list(channels)} are not all multiples of groups {groups}",
            mend="Change one of the two.",
        )
    depth, _, _ = _image(schema, "resnet", smallest=2 ** (len(channels) - 1))
    width = channels[0]
    layers: list[nn.Module] = [
        nn.Conv2d(depth, width, 3, padding=1, bias=False),
        nn.GroupNorm(groups, width),
        nn.ReLU(),
    ]
    for stage, count in enumerate(channels):
        for block in range(blocks):
            layers.append(_Block(width, count, 2 if stage and not block else 1, groups))
            width = count
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, _width(schema, outputs)))


def _width(schema: Schema, outputs: int | None) -> int:
    if schema.target == "tokens":
        raise ConfigError("the target is tokens, which this model does not predict", mend="Use char_lstm.")
    return outputs or schema.num_classes or schema.num_outputs


def _image(schema: Schema, name: str, *, smallest: int) -> tuple[int, int, int]:
    if len(schema.input_shape) != 3 or min(schema.input_shape[1:]) < smallest:
        raise ConfigError(
            f"{name} reads images (channels, height, width) of at least {smallest} × {smallest}, "
            f"an input has shape {schema.input_shape}",
            mend="Use mlp, or give the inputs that shape.",
        )
    depth, height, width = schema.input_shape
    return depth, height, width


def _require_sizes(**sizes: Sequence[int]) -> None:
    """What comes from a file may be anything."""
    for name, values in sizes.items():
        if not isinstance(values, list | tuple):
            raise ConfigError(
                f"{name} is {values!r}", where=f"task.options.{name}", mend="Give a list of whole numbers."
            )
        for value in values:
            _require_size(**{name: value})


def _require_size(**sizes: int) -> None:
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} has {value!r}", where=f"task.options.{name}", mend="Give a whole number from 1.")


MODELS = Registry(
    "rivage.models",
    "model",
    {name: f"{__name__}:{name}" for name in ("char_gru", "char_lstm", "char_ngram", "cnn", "linear", "mlp", "resnet")},
)
"""Kind -> function of (schema, options); plug-ins register under the entry-point group of the same name."""


@dataclass(frozen=True, slots=True)
class Factory:
    """A model's maker with its options: call it with the schema. It can be sent to another process.

    Args:
        target: function or class.
        options: keyword arguments.
        takes_schema: whether the schema is its first argument.
    """

    target: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    takes_schema: bool = True

    def __call__(self, schema: Schema) -> Any:
        """Make the model."""
        return self.target(schema, **self.options) if self.takes_schema else self.target(**self.options)


def find(kind: str) -> Callable[..., Any]:
    """The class or function behind a registered name or ``"my_pkg.nets:Net"``.

    Raises:
        ConfigError: for an unknown name, or a path that cannot be imported or called.
    """
    target = locate(kind, where="task.model") if ":" in kind else MODELS.get(kind, where="task.model")
    if not callable(target):
        raise ConfigError(
            f'"{kind}" is a {type(target).__name__}', where="task.model", mend="Name a class or a function."
        )
    found: Callable[..., Any] = target
    return found


def factory(target: Callable[..., Any], options: Mapping[str, Any], *, outputs: int) -> Factory:
    """How a class or function ``Net`` that gives an ``nn.Module`` is called.

    As ``Net(schema, **options)`` if its first parameter is called ``schema``, or has no default value and no
    option sets it; else as ``Net(**options)``. A parameter called ``outputs`` is told how many numbers per
    record the loss expects.

    Raises:
        ConfigError: for options that it does not take.
    """
    parameters = _parameters(target)
    names = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_schema = _takes_schema(parameters, options)
    known = [name for name in names[int(takes_schema) :] if name != "outputs"]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        _refuse_unknown(getattr(target, "__name__", str(target)), options, known)
    told = {"outputs": outputs} if "outputs" in names else {}
    return Factory(target, {**options, **told}, takes_schema)


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(target).parameters.values())
    except ValueError:  # some classes written in C do not say
        return []


def _takes_schema(parameters: Sequence[inspect.Parameter], options: Mapping[str, Any]) -> bool:
    if not parameters:
        return False
    first = parameters[0]
    if first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        return False
    return first.name == "schema" or (first.default is first.empty and first.name not in options)


def _refuse_unknown(name: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    for option in options:
        if option not in known:
            raise ConfigError(
                f'model "{name}" has no option "{option}"',
                where="task.options",
                mend=nearest(option, known) or (f"It has: {', '.join(known)}." if known else "It has none."),
            )
