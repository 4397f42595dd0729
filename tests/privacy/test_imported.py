"""Updates of other systems become a message log, or an error that names the file."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from safetensors.torch import save_file
from torch import nn

from rivage.core.errors import DataError, RivageError
from rivage.core.toml import format_toml
from rivage.learning.params import ParameterMap, to_numpy
from rivage.privacy import imported
from rivage.privacy.import_header import ImportHeader, TensorShape
from rivage.privacy.imported import import_updates
from rivage.privacy.views import CuriousServer

HEADER: dict[str, Any] = {
    "loss": "cross_entropy",
    "parameters": [{"name": "weight", "shape": [2, 3]}, {"name": "bias", "shape": [2]}],
    "hyper_parameters": {"learning_rate": 0.1, "epochs": 2},
}


def tensors(value: float, dtype: Any = np.float32) -> dict[str, ndarray]:
    return {"bias": np.full(2, value + 0.5, dtype), "weight": np.full((2, 3), value, dtype)}


def folder_of(path: Path, files: dict[str, dict[str, Any]], header: dict[str, Any] = HEADER) -> Path:
    path.mkdir(exist_ok=True)
    (path / "header.toml").write_text(format_toml(header))
    for name, arrays in files.items():
        np.savez(path / f"{name}.npz", **arrays)
    return path


def exchanges(folder: Path) -> list[Any]:
    return list(CuriousServer(import_updates(folder, folder.parent / "log")).exchanges())


def test_updates_come_out_as_they_were_saved(tmp_path: Path) -> None:
    files = {
        "round-0-sent": tensors(1),
        "round-0-client-17": tensors(2) | {"__weight__": np.array(30)},
        "round-0-client-4": tensors(3),
        "round-2-sent": tensors(4),
        "round-2-client-17": tensors(5),
        "round-2-client-17-sent": tensors(6),
        "round-2-client-5": tensors(7),
    }
    found = exchanges(folder_of(tmp_path / "in", files))
    told = [(e.round, e.client, e.sent[0], e.sent[-1], e.returned[0], e.returned[-1], e.weight) for e in found]
    assert told == [
        (0, 4, 1, 1.5, 3, 3.5, None),
        (0, 17, 1, 1.5, 2, 2.5, 30.0),
        (2, 5, 4, 4.5, 7, 7.5, None),
        (2, 17, 6, 6.5, 5, 5.5, None),
    ]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["log"]


def test_the_header_comes_along(tmp_path: Path) -> None:
    claim = {"unit": "record", "epsilon": 1.0}
    header = HEADER | {"method": "ours", "differential_privacy": claim}
    log = import_updates(
        folder_of(tmp_path / "in", {"round-0-sent": tensors(1), "round-0-client-1": tensors(2)}, header),
        tmp_path / "log",
    )
    assert log.header.loss == "cross_entropy"
    assert log.header.hyper_parameters == {"learning_rate": 0.1, "epochs": 2}
    assert log.header.differential_privacy == claim
    assert log.header.kind == "model"
    log.header.check(ParameterMap.of(nn.Linear(3, 2)))
    assert log.header.precision == 2.0**-24


class Net(nn.Module):
    """A frozen layer before a trained one, and running means."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.first.requires_grad_(False)


@pytest.mark.parametrize("kind", ["model", "delta"])
def test_state_dicts_of_torch_have_the_layout_of_the_task(tmp_path: Path, kind: str) -> None:
    net, layout = Net(), ParameterMap.of(Net())
    trained = {name: p.requires_grad for name, p in net.named_parameters()}
    header = {
        "loss": "cross_entropy",
        "kind": kind,
        "parameters": [
            {"name": name, "shape": list(p.shape), "frozen": not trained[name]} for name, p in net.named_parameters()
        ],
        "buffers": [{"name": n, "shape": list(b.shape)} for n, b in net.named_buffers() if b.is_floating_point()],
        "ignored": ["norm.num_batches_tracked"],
    }
    folder = folder_of(tmp_path / "in", {}, header)
    before, after = Net().state_dict(), Net().state_dict()
    save_file(before, folder / "round-0-sent.safetensors")
    change = {name: after[name] - before[name] for name in after}
    save_file(after if kind == "model" else change, folder / "round-0-client-0.safetensors")
    (exchange,) = exchanges(folder)

    def flat(state: dict[str, torch.Tensor]) -> ndarray:
        return to_numpy(layout.flatten(state))

    assert np.array_equal(exchange.sent, flat(before))
    np.testing.assert_allclose(exchange.pseudo_gradient, flat(before) - flat(after), atol=1e-6)
    assert np.array_equal(exchange.returned, flat(before) + flat(change) if kind == "delta" else flat(after))
    log = import_updates(folder, tmp_path / "log")
    log.header.check(layout)


def test_gradients_need_no_buffers(tmp_path: Path) -> None:
    header = HEADER | {"kind": "gradient", "buffers": [{"name": "mean", "shape": [2]}]}
    files = {"round-0-sent": tensors(1) | {"mean": np.ones(2, np.float32)}, "round-0-client-3": tensors(2)}
    (exchange,) = exchanges(folder_of(tmp_path / "in", files, header))
    assert exchange.pseudo_gradient.tolist() == [2] * 6 + [2.5] * 2 + [0] * 2
    files["round-0-client-3"] = {"weight": np.ones((2, 3), np.float32)}
    with pytest.raises(DataError, match='"bias" is missing'):
        exchanges(folder_of(tmp_path / "in", files, header))


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["model", "delta", "gradient"]),
    flat=st.booleans(),
    pairs=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6),
    own=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_whatever_is_saved_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    flat: bool,
    pairs: set[tuple[int, int]],
    own: set[tuple[int, int]],
    dtype: Any,
) -> None:
    def saved(value: float) -> dict[str, ndarray]:
        return (
            {"params": np.full(8, value, dtype)}
            if flat
            else {"weight": np.full((2, 3), value, dtype), "bias": np.full(2, value, dtype)}
        )

    files = {f"round-{round}-sent": saved(round) for round in {round for round, _ in pairs}}
    files |= {f"round-{round}-client-{client}-sent": saved(10 + client) for round, client in own}
    files |= {f"round-{round}-client-{client}": saved(round - client) for round, client in pairs}
    found = exchanges(folder_of(tmp_path_factory.mktemp("in"), files, HEADER | {"kind": kind}))
    assert [(exchange.round, exchange.client) for exchange in found] == sorted(pairs)
    for exchange in found:
        key = exchange.round, exchange.client
        w, value = 10 + key[1] if key in own else key[0], key[0] - key[1]
        expected = {"model": w - value, "delta": -value, "gradient": value}[kind]
        assert exchange.sent.dtype == dtype
        assert np.array_equal(exchange.sent, [w] * 8)
        assert np.array_equal(exchange.pseudo_gradient, [expected] * 8)


# --- what is refused -----------------------------------------------------------------------------------------

SOUND = {"round-0-sent": tensors(1), "round-0-client-1": tensors(2)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"round-0-client-1": {"weight": np.ones((2, 3))}}, 'round-0-client-1.npz: "bias" is missing'),
        (
            {"round-0-client-1": tensors(1) | {"bais": np.ones(2)}},
            r'"bais" is not in the header. Did you mean "bias"\?',
        ),
        (
            {"round-0-client-1": tensors(1) | {"bias": np.ones(3)}},
            r'"bias" has shape \(3,\) where the header says \(2,\)',
        ),
        ({"round-0-client-1": tensors(1) | {"bias": np.ones(2, int)}}, '"bias" is of type int64'),
        ({"round-0-client-1": tensors(1) | {"bias": np.ones(2, complex)}}, '"bias" is of type complex128'),
        ({"round-0-client-1": tensors(1) | {"bias": np.ones(2, object)}}, "no archive of plain arrays .Object arrays"),
        ({"round-0-client-1": {"params": np.ones(9)}}, r'"params" has shape \(9,\) where the header says \(8,\)'),
        ({"round-0-client-1": tensors(1) | {"__weight__": np.ones(2)}}, "__weight__ is no number"),
        ({"round-1-client-1": tensors(1)}, "nothing says what client 1 was sent in round 1. Add round-1-sent"),
        ({"round-0-sent": {"weight": np.ones((2, 3))}}, 'round-0-sent.npz: "bias" is missing'),
        ({"client-1": tensors(1)}, "client-1.npz: is no file of the format. Call it round-0-client-17.npz"),
        ({"round-0-client-1": tensors(1) | {"bias": np.ones(3 << 20)}}, "bytes where 16777344 are enough"),
    ],
)
def test_files_that_are_not_as_described(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        exchanges(folder_of(tmp_path / "in", SOUND | change))
    assert [path.name for path in tmp_path.iterdir()] == ["in"], "no half of a log stays behind"


def test_all_faults_are_told_at_once_and_no_more_than_ten(tmp_path: Path) -> None:
    files = {f"round-0-client-{c}": tensors(1) | {"bias": np.ones(3)} for c in range(12)}
    with pytest.raises(DataError, match=r"12 problems(\n.*){10}\n  and 2 more"):
        exchanges(folder_of(tmp_path / "in", SOUND | files))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 3}, 'unknown key "seed"|seed'),
        ({"hyper_parameters": {"seed": 3}}, 'hyper_parameters hold "seed"'),
        ({"kind": "weights"}, "kind"),
        ({"loss": 3}, "loss"),
        ({"parameters": []}, "no parameter is trained"),
        ({"parameters": [{"name": "w", "shape": [2], "frozen": True}]}, "no parameter is trained"),
        ({"parameters": [{"name": "w", "shape": [2]}] * 2}, '"w" cannot be the name of a tensor, or is that of two'),
        ({"parameters": [{"name": "w", "shape": [-2, -2]}]}, "negative"),
        ({"parameters": [{"name": "w", "shape": [10**5, 10**5]}]}, "10000000000 numbers, more than"),
    ],
)
def test_headers_that_do_not_describe_a_training(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    folder = folder_of(tmp_path / "in", SOUND, HEADER | change)
    with pytest.raises(RivageError, match=told) as caught:
        exchanges(folder)
    assert "header.toml" in str(caught.value)


def test_exactly_one_header(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", SOUND)
    (folder / "header.json").write_text(json.dumps(HEADER))
    with pytest.raises(DataError, match="both"):
        exchanges(folder)
    (folder / "header.toml").unlink()
    assert len(exchanges(folder)) == 1
    (folder / "header.json").write_text("[1]")
    with pytest.raises(DataError, match=r"header\.json: is no table"):
        exchanges(folder)
    (folder / "header.json").unlink()
    with pytest.raises(DataError, match=r"has no header\.toml"):
        exchanges(folder)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    folder = folder_of(tmp_path / "in", SOUND)
    (folder / "round-0-client-2.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=r"round-0-client-2\.pt: is no file of the format\. Pickles are never loaded"):
        exchanges(folder)
    (folder / "round-0-client-2.pt").rename(folder / "round-0-client-2.npz")
    with pytest.raises(DataError, match=r"round-0-client-2\.npz: is no archive of plain arrays"):
        exchanges(folder)
    array = np.empty(2, object)
    array[0] = Trap()
    np.savez(folder / "round-0-client-2.npz", weight=array)
    with pytest.raises(DataError, match="no archive of plain arrays"):
        exchanges(folder)
    assert not (tmp_path / "sprung").exists()


def test_an_archive_that_unpacks_to_much_is_not_unpacked(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", SOUND)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(1 << 22))
    with zipfile.ZipFile(folder / "round-0-client-1.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bias.npy", buffer.getvalue())
    assert (folder / "round-0-client-1.npz").stat().st_size < 1 << 20
    with pytest.raises(DataError, match="unpacks to 33554560 bytes"):
        exchanges(folder)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", SOUND)
    content = (folder / "round-0-client-1.npz").read_bytes()
    for size in range(0, len(content), 50):
        (folder / "round-0-client-1.npz").write_bytes(content[:size])
        with pytest.raises(DataError, match=r"round-0-client-1\.npz: is no archive"):
            exchanges(folder)
    (folder / "round-0-client-1.npz").unlink()
    (folder / "round-0-client-1.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"round-0-client-1\.safetensors: is not a safetensors buffer"):
        exchanges(folder)
    half = {name: torch.from_numpy(array).bfloat16() for name, array in tensors(1).items()}
    save_file(half, folder / "round-0-client-1.safetensors")
    with pytest.raises(DataError, match="The types are float16, float32 and float64"):
        exchanges(folder)


def test_one_update_twice(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", SOUND)
    save_file({n: torch.from_numpy(a) for n, a in tensors(1).items()}, folder / "round-0-client-1.safetensors")
    with pytest.raises(DataError, match=r"says the same as round-0-client-1\.npz"):
        exchanges(folder)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported, "_MAX_FILES", 2)
    with pytest.raises(DataError, match="more than 2 files"):
        exchanges(folder_of(tmp_path / "in", SOUND | {"round-0-client-2": tensors(1)}))


def test_numbers_that_are_not_finite_are_left_to_the_readers(tmp_path: Path) -> None:
    files = SOUND | {"round-0-client-2": tensors(np.nan)}
    log = import_updates(folder_of(tmp_path / "in", files), tmp_path / "log")
    assert [exchange.client for exchange in log.exchanges()] == [1]
    assert [str(fault) for fault in log.faults] == ["client 2, round 0: 8 of 8 numbers are not finite"]


def test_the_layout_puts_frozen_parameters_behind_trained_ones() -> None:
    shapes = (TensorShape(name="a", shape=(2,), frozen=True), TensorShape(name="b", shape=(3,)))
    layout = ImportHeader(loss="squared", parameters=shapes, buffers=(TensorShape(name="c", shape=()),)).layout
    assert [(entry.name, entry.offset) for entry in layout.entries] == [("b", 0), ("a", 3), ("c", 5)]
    assert (layout.trainable, layout.dimension, layout.buffers) == (3, 6, ("c",))
