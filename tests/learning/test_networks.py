from __future__ import annotations

import pytest
import torch
from torch import nn

from rivage.core.errors import ConfigError
from rivage.data.population import Schema
from rivage.learning.networks import (
    MODELS,
    char_gru,
    char_lstm,
    char_ngram,
    cnn,
    factory,
    find,
    linear,
    mlp,
    resnet,
)

MNIST = Schema(input_shape=(1, 28, 28), target="class", num_classes=10)
FLAT = Schema(input_shape=(784,), target="class", num_classes=10)
TEXT = Schema(input_shape=(80,), target="tokens", num_classes=90)
TINY = Schema(input_shape=(3,), target="class", num_classes=2)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_sizes() -> None:
    assert count(linear(Schema(input_shape=(60,), target="class", num_classes=10))) == 610
    assert count(mlp(FLAT, hidden=(200, 200))) == 199_210
    assert count(mlp(MNIST, hidden=[200, 200])) == 199_210
    assert count(cnn(MNIST)) == 1_663_370
    assert count(char_lstm(TEXT)) == 822_570


def test_no_vocabulary_gives_the_remembered_size_of_the_lstm() -> None:
    two_biases, one_bias = 798_720, 796_672
    sizes = {base + 8 * v + 257 * v for v in range(1, 400) for base in (two_biases, one_bias)}
    assert 866_578 not in sizes
    assert two_biases + 265 * 256 == 866_560


def test_size_of_the_residual_network() -> None:
    def block(fan_in: int, fan_out: int) -> int:
        shortcut = fan_in * fan_out + 2 * fan_out if fan_in != fan_out else 0
        return 9 * fan_in * fan_out + 9 * fan_out**2 + 4 * fan_out + shortcut

    def total(depth: int, blocks: int) -> int:
        stem = 9 * depth * 16 + 32
        stages = sum(block(a, b) + (blocks - 1) * block(b, b) for a, b in [(16, 16), (16, 32), (32, 64)])
        return stem + stages + 64 * 10 + 10

    colour = Schema(input_shape=(3, 32, 32), target="class", num_classes=10)
    assert count(resnet(colour)) == total(3, 1)
    assert count(resnet(MNIST, blocks=3)) == total(1, 3)


@pytest.mark.parametrize("model", [linear, mlp, cnn, resnet])
def test_output_shapes(model) -> None:
    assert model(MNIST)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    real = Schema(input_shape=(1, 8, 8), target="real", num_outputs=3)
    assert model(real)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert model(MNIST, outputs=1)(torch.zeros(2, 1, 28, 28)).shape == (2, 1)


def test_character_lstm_never_looks_ahead() -> None:
    model = char_lstm(TEXT, hidden=16)
    tokens = torch.randint(90, (1, 10))
    other = tokens.clone()
    other[0, 6:] = (other[0, 6:] + 1) % 90
    with torch.no_grad():
        before, after = model(tokens), model(other)
    assert before.shape == (1, 10, 90)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_sizes_of_the_small_models_of_characters() -> None:
    assert count(char_gru(TEXT)) == 90 * 8 + 3 * 128 * (8 + 128 + 2) + 129 * 90
    assert count(char_ngram(TEXT)) == (90 + 2 * 2048) * 32 + 33 * 90
    assert count(char_ngram(TEXT, order=1, width=4)) == 90 * 4 + 5 * 90


@pytest.mark.parametrize("order", [1, 2, 4])
def test_an_n_gram_model_looks_at_the_last_symbols_and_no_others(order: int) -> None:
    model = char_ngram(TEXT, order=order)
    tokens = torch.randint(90, (1, 12), generator=torch.Generator().manual_seed(0))
    for changed in range(12):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % 90
        with torch.no_grad():
            moved = (model(tokens) != model(other)).any(dim=2)[0]
        assert moved.tolist() == [changed <= position < changed + order for position in range(12)]


def test_an_n_gram_has_one_meaning_wherever_it_stands() -> None:
    model = char_ngram(TEXT, order=3)
    with torch.no_grad():
        found = model(torch.tensor([[5, 7, 9, 11, 5, 7, 9], [88, 89, 3, 5, 7, 9, 0]]))
        single = model(torch.tensor([[5, 7, 9]]))
    torch.testing.assert_close(found[0, 2], found[0, 6])
    torch.testing.assert_close(found[0, 6], found[1, 5])
    torch.testing.assert_close(single[0, 2], found[0, 2])
    assert not torch.allclose(found[0, 0], found[0, 4]), "a beginning is a context of its own"


def test_an_n_gram_model_is_its_formula() -> None:
    """Sums of vectors, computed symbol by symbol with whole numbers that have no end."""
    model = char_ngram(TEXT, order=3, buckets=64, width=8)
    tables = [dict(model.named_parameters())[f"tables.{k}.weight"] for k in range(3)]
    text = [3, 89, 0, 3, 42]
    with torch.no_grad():
        found = model(torch.tensor([text]))[0]
        for position in range(len(text)):
            code, total = text[position], tables[0][text[position]].clone()
            for distance in (1, 2):
                earlier = text[position - distance] if position >= distance else 90
                code = (code * 48_271 + earlier + 1) % (2**31 - 1)
                total += tables[distance][code % 64]
            torch.testing.assert_close(found[position], model.head(total))


def test_few_n_grams_share_a_vector() -> None:
    """All pairs of symbols over 4096 buckets fall about as evenly as at random."""
    model = char_ngram(TEXT, order=2, buckets=4096)
    seen: list[int] = []
    model.tables[1].register_forward_hook(lambda module, given, out: seen.extend(given[0][:, 1].tolist()))
    pairs = torch.cartesian_prod(torch.arange(90), torch.arange(90))
    with torch.no_grad():
        model(pairs)
    loads = torch.bincount(torch.tensor(seen), minlength=4096)
    assert int((loads > 0).sum()) > 4096 * (1 - 2.72 ** (-8100 / 4096)) * 0.95
    assert int(loads.max()) <= 16


def test_a_small_recurrent_model_never_looks_ahead() -> None:
    model = char_gru(TEXT, hidden=16)
    tokens = torch.randint(90, (1, 10), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[0, 6:] = (other[0, 6:] + 1) % 90
    with torch.no_grad():
        before, after = model(tokens), model(other)
    assert before.shape == (1, 10, 90)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_group_norm_network_treats_records_alone() -> None:
    model = resnet(Schema(input_shape=(1, 8, 8), target="class", num_classes=3))
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=1e-4, atol=1e-5)


def test_dense_networks_are_plain_chains() -> None:
    layers = [type(layer) for layer in mlp(FLAT, hidden=(8, 8)).children()]
    assert layers == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in linear(MNIST).children()] == [nn.Flatten, nn.Linear]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cnn(FLAT), r"cnn reads images .* has shape \(784,\)"),
        (lambda: resnet(Schema(input_shape=(1, 2, 2), target="class", num_classes=2)), "at least 4 × 4"),
        (lambda: resnet(MNIST, channels=[12]), r"channels \[12\] are not all multiples of groups 8"),
        (lambda: resnet(MNIST, channels=[]), r"channels \[\]"),
        (lambda: mlp(FLAT, hidden=[0]), "task.options.hidden: hidden has 0"),
        (lambda: cnn(MNIST, hidden=True), "hidden has True"),
        (lambda: char_lstm(FLAT), "char_lstm predicts tokens, the target is class"),
        (lambda: char_gru(FLAT), "char_gru predicts tokens, the target is class"),
        (lambda: char_ngram(FLAT), "char_ngram predicts tokens, the target is class"),
        (lambda: char_ngram(TEXT, order=0), "task.options.order: order has 0"),
        (lambda: mlp(TEXT), "the target is tokens.*char_lstm"),
    ],
)
def test_impossible_sizes_are_refused(make, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert caught.value.mend


@pytest.mark.skipif(hasattr(mlp, "__wrapped__"), reason="run-time type checking speaks first")
@pytest.mark.parametrize(
    ("hidden", "words"),
    [(64, "hidden is 64. Give a list"), ([2.5], "hidden has 2.5"), ("ab", "hidden is 'ab'")],
)
def test_sizes_of_the_wrong_type_are_refused(hidden, words: str) -> None:
    with pytest.raises(ConfigError, match=f"task.options.hidden: {words}"):
        mlp(FLAT, hidden=hidden)


def test_registry_holds_every_model_under_its_name() -> None:
    assert [find(kind).__name__ for kind in MODELS.builtin] == list(MODELS.builtin)
    with pytest.raises(ConfigError, match=r'unknown model kind "linaer".*Did you mean "linear"'):
        find("linaer")
    with pytest.raises(ConfigError, match=r'task.model: "math:pi" is a float'):
        find("math:pi")
    assert find("torch.nn:Linear") is nn.Linear


def _takes_schema(schema, width=3):
    return ("schema", schema, width)


def _named_schema(width=3, *, schema=None):
    return ("no schema", width, schema)


def _first_default(hidden=64):
    return ("no schema", hidden)


def _optional_schema(schema=None, **options):
    return ("schema", schema, options)


def _positional_features(features, hidden=2):
    return ("no schema", features, hidden)


def _nothing():
    return ("no schema",)


def _told(schema, outputs):
    return (schema, outputs)


@pytest.mark.parametrize(
    ("target", "options", "expected"),
    [
        (_takes_schema, {"width": 5}, ("schema", TINY, 5)),
        (_named_schema, {"width": 5}, ("no schema", 5, None)),
        (_first_default, {}, ("no schema", 64)),
        (_optional_schema, {"depth": 1}, ("schema", TINY, {"depth": 1})),
        (_positional_features, {"features": 13}, ("no schema", 13, 2)),
        (_nothing, {}, ("no schema",)),
        (_told, {}, (TINY, 7)),
    ],
)
def test_how_a_users_model_is_called(target, options, expected) -> None:
    assert factory(target, options, outputs=7)(TINY) == expected


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'"mlp" has no option "hiden".*Did you mean "hidden"'):
        factory(mlp, {"hiden": [3]}, outputs=2)
    with pytest.raises(ConfigError, match=r'"_nothing" has no option "x". It has none'):
        factory(_nothing, {"x": 1}, outputs=2)
    with pytest.raises(ConfigError, match=r'has no option "outputs"'):
        factory(mlp, {"outputs": 3}, outputs=2)
