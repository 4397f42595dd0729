"""Clipping, rounding, sparsifying and their order: byte formulas, error feedback, closed forms and edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rivage.core.errors import ConfigError
from rivage.core.messages import decode, encode, encoded_size
from rivage.core.seeding import Streams
from rivage.core.settings import dump, read
from rivage.core.toml import format_toml
from rivage.data.readers import Digits
from rivage.federated.adversaries import SignFlip
from rivage.federated.algorithm import Update
from rivage.federated.clipping import Clip
from rivage.federated.collectors import Averaged
from rivage.federated.fedavg import FedAvg
from rivage.federated.kinds import STAGES
from rivage.federated.robust import Krum
from rivage.federated.rounding import BFloat16, Float16
from rivage.federated.sparsifying import TopK
from rivage.federated.stages import Encoded, Pipeline, UpdateStage
from rivage.studies.settings import Study, dump_study, parse_study
from rivage.studies.study_tables import Method

STREAMS = Streams(0)
STAGE_LISTS: list[list[UpdateStage]] = [
    [Clip(norm=0.5)],
    [Float16()],
    [BFloat16()],
    [TopK(count=3)],
    [TopK(share=0.4)],
    [Clip(), TopK(share=0.1), Float16()],
    [TopK(share=0.9), BFloat16()],
    [Clip(), Float16()],
]
VECTORS = arrays(np.float32, st.integers(1, 300), elements=st.floats(-100, 100, width=32))


def normal(size: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(dtype)


def through(stage: UpdateStage, vector: np.ndarray) -> np.ndarray:
    return stage.decode(stage.encode(vector, STREAMS), vector.size)


def send(stages: Any, tensor: torch.Tensor, down: Any = None, residuals: Any = None) -> Any:
    update = Update({"params": (tensor, 2.0)}, client=3)
    return Pipeline(stages).transmit(update, down or {}, residuals or {}, STREAMS)


# --- clip ------------------------------------------------------------------------------------------------------------


@given(VECTORS, st.floats(1e-3, 1e3))
def test_clip_is_the_projection_onto_the_ball(vector: np.ndarray, norm: float) -> None:
    clipped, length = through(Clip(norm=norm), vector), np.linalg.norm(vector.astype(np.float64))
    assert np.linalg.norm(clipped.astype(np.float64)) <= norm * (1 + 1e-6)
    np.testing.assert_allclose(clipped, vector * min(1, norm / length if length else 1), rtol=1e-6, atol=1e-30)
    if length < norm * (1 - 1e-12):
        assert clipped is vector


def test_clip_survives_squares_that_overflow() -> None:
    for dtype, large in ((np.float32, 1e30), (np.float64, 1e300)):
        clipped = through(Clip(norm=2.0), np.array([3 * large, -4 * large], dtype))
        np.testing.assert_allclose(clipped, [1.2, -1.6], rtol=1e-6)
        assert clipped.dtype == dtype


# --- rounding --------------------------------------------------------------------------------------------------------


def nearest(vector: np.ndarray, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Brute force: the nearest of ascending ``numbers``; of two as near, the one with the even code."""
    right = np.clip(np.searchsorted(numbers, vector), 1, len(numbers) - 1)
    low, high = numbers[right - 1], numbers[right]
    down, up = vector - low, high - vector
    return np.where((down < up) | ((down == up) & (codes[right - 1] % 2 == 0)), low, high)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stage", [Float16(), BFloat16()])
def test_rounding_is_to_nearest_even(stage: Any, dtype: Any) -> None:
    half = isinstance(stage, Float16)
    codes = np.arange(0x7C00 if half else 0x7F80, dtype=np.uint16)  # every finite number >= 0
    numbers = stage.decode(Encoded(codes.view(np.float16) if half else codes), codes.size).astype(np.float64)
    middles = (numbers[:-1] + numbers[1:]) / 2
    tried = np.concatenate([numbers, middles, np.nextafter(middles, 0), np.nextafter(middles, np.inf)])
    tried = tried[(np.abs(tried) >= 1e-44) & (tried < 3.4e38)].astype(dtype)
    tried = np.concatenate([tried, np.abs(normal(3000, dtype=dtype))])
    for sign in (1, -1):
        rounded = through(stage, (sign * tried).astype(dtype)).astype(np.float64)
        np.testing.assert_array_equal(rounded, sign * nearest(tried.astype(np.float64), numbers, codes))


@pytest.mark.parametrize(
    ("stage", "largest"), [(Float16(), 65504.0), (BFloat16(), float(torch.finfo(torch.bfloat16).max))]
)
def test_finite_numbers_stay_finite_and_the_others_stay_visible(stage: Any, largest: float) -> None:
    wide = np.array([3.4e38, -3.4e38, np.inf, -np.inf, np.nan, -0.0, 0.0], np.float32)
    sent = through(stage, wide)
    np.testing.assert_array_equal(sent[:5], [largest, -largest, np.inf, -np.inf, np.nan])
    assert np.signbit(sent[5:]).tolist() == [True, False]
    assert through(stage, np.array([1e300, -1e300]))[0] == largest
    payloads = np.array([0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF], np.uint32).view(np.float32)  # NaN in all its forms
    assert np.isnan(through(stage, payloads)).all()


def test_bfloat16_is_that_of_torch() -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, 200_000, np.uint32)
    vector = bits.view(np.float32)
    vector = vector[np.isfinite(vector)]
    ours, theirs = through(BFloat16(), vector), torch.from_numpy(vector).bfloat16().float().numpy()
    finite = np.isfinite(theirs)
    np.testing.assert_array_equal(ours[finite], theirs[finite])
    assert BFloat16().encode(vector, STREAMS).vector.dtype == np.uint16


# --- top-k -----------------------------------------------------------------------------------------------------------


@given(VECTORS, st.integers(1, 400), st.integers(0, 3))
def test_the_largest_are_sent_ties_by_position(vector: np.ndarray, count: int, decimals: int) -> None:
    vector = vector.round(decimals)  # makes ties
    kept = min(count, vector.size)
    order = np.argsort(-np.abs(vector), kind="stable")[:kept]
    expected = np.zeros_like(vector)
    expected[order] = vector[order]
    encoded = TopK(count=count).encode(vector, STREAMS)
    np.testing.assert_array_equal(TopK(count=count).decode(encoded, vector.size), expected)
    positions = np.sort(order)
    np.testing.assert_array_equal(encoded.vector, vector[positions])


@given(VECTORS, st.floats(1e-3, 1))
def test_top_k_contracts(vector: np.ndarray, share: float) -> None:
    stage, v = TopK(share=share), vector.astype(np.float64)
    missed = ((v - through(stage, vector)) ** 2).sum()
    assert missed <= (1 - stage.sends(v.size) / v.size) * (v**2).sum() * (1 + 1e-12)


def test_the_bound_of_top_k_is_reached_by_equal_numbers() -> None:
    v = np.ones(10, np.float32)
    assert ((v - through(TopK(share=0.3), v)) ** 2).sum() == 7


@pytest.mark.parametrize("dimension", [0, 1, 2, 3, 7, 8, 9, 64, 65, 1000, 4097])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.11, 0.12, 0.125, 0.5, 1.0])
def test_bytes_of_top_k_are_those_of_the_formula(dimension: int, share: float) -> None:
    stage, vector = TopK(share=share), normal(dimension)
    k = min(dimension, max(1, round(share * dimension)))
    width = int(np.ceil(np.log2(dimension))) if dimension > 1 else 0
    expected = 4 * k + min(int(np.ceil(k * width / 8)), int(np.ceil(dimension / 8)))
    encoded = stage.encode(vector, STREAMS)
    assert encoded.vector.nbytes + sum(side.nbytes for side in encoded.side.values()) == expected
    assert stage.nbytes(dimension) == expected
    kept = np.flatnonzero(stage.decode(encoded, dimension))
    assert len(kept) == k


def test_the_shorter_of_positions_and_bitmap_is_sent() -> None:
    assert TopK(count=1).nbytes(1) == 4  # nothing to say about where
    assert TopK(count=12).nbytes(100) == 48 + 11  # 84 bits
    assert TopK(count=15).nbytes(100) == 60 + 13  # 105 bits against 100
    assert TopK(count=14).nbytes(100) == 56 + 13  # equal: positions
    side = TopK(count=14).encode(np.arange(100, 0, -1, np.float32), STREAMS).side["positions"]
    assert np.packbits(np.unpackbits(side)[: 14 * 7].reshape(14, 7), axis=1).ravel().tolist() == [*range(0, 28, 2)]
    assert TopK(count=500).nbytes(100) == 400 + 13


def test_values_of_a_float64_run_travel_as_float32_and_stay_finite() -> None:
    encoded = TopK(count=2).encode(np.array([1e300, 1 / 3, 1e-3]), STREAMS)
    assert encoded.vector.dtype == np.float32
    np.testing.assert_array_equal(encoded.vector, np.array([np.finfo(np.float32).max, 1 / 3], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stages", STAGE_LISTS, ids=str)
def test_a_client_that_diverged_is_seen_by_the_server(stages: Any, bad: float) -> None:
    vector = normal(200)
    vector[117] = bad
    with np.errstate(all="raise", under="ignore"):
        sent = send(stages, torch.from_numpy(vector))
    assert not torch.isfinite(sent.update.payload["params"][0]).all()
    assert sent.residuals == {}  # or the client would be rejected for ever


# --- the pipeline ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", [1, 5, 64, 1000])
@pytest.mark.parametrize("stages", [[], *STAGE_LISTS], ids=str)
def test_bytes_on_the_wire_are_those_of_the_formula(stages: Any, dimension: int) -> None:
    sent = send(stages, torch.from_numpy(normal(dimension)))
    data = sum(array.nbytes for array in sent.payload.values())
    assert data == Pipeline(stages).nbytes(dimension)
    framing = encoded_size(sent.payload) - data
    assert len(encode(sent.payload)) == data + framing
    assert 0 < framing < 250


def test_two_bytes_a_value_behind_top_k() -> None:
    assert Pipeline([TopK(count=10), Float16()]).nbytes(1000) == 20 + 13
    assert Pipeline([Clip(), TopK(count=10)]).nbytes(1000) == 40 + 13
    assert Pipeline([Clip(), BFloat16()]).nbytes(1000) == 2000


@pytest.mark.parametrize("stages", STAGE_LISTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_wire_alone_tells_the_server(stages: Any, dtype: torch.dtype) -> None:
    down = {"params": torch.from_numpy(normal(60, 1)).to(dtype).reshape(3, 20)}
    up = down["params"] + torch.from_numpy(normal(60, 2)).to(dtype).reshape(3, 20)
    sent = send(stages, up, down, {"params": torch.from_numpy(normal(60, 3)).to(dtype)})
    received, weight = sent.update.payload["params"]
    wire = Pipeline(stages).decode("params", decode(encode(sent.payload)), 60)
    assert torch.equal(received, torch.from_numpy(wire).to(dtype).reshape(3, 20) + down["params"])
    assert (received.dtype, weight, sent.update.client) == (dtype, 2.0, 3)


def test_what_was_broadcast_travels_as_difference() -> None:
    base = torch.full((50,), 1000.0)
    step = torch.from_numpy(normal(50)) * 1e-3
    sent = send([Clip(norm=1e-3)], base + step, {"params": base})
    assert np.linalg.norm(sent.payload["params"]) <= 1.00001e-3
    other = send([Clip(norm=1e-3)], base + step, {"params": base[:49], "control": base})
    assert other.update.payload["params"][0].norm() <= 1.00001e-3


def test_without_stages_an_update_travels_as_it_is() -> None:
    update = Update({"params": (torch.randn(2, 3), 1.0), "count": (torch.tensor([3]), 1.0)}, {"loss": 1.0})
    sent = Pipeline([]).transmit(update, {"params": torch.ones(2, 3)}, {}, STREAMS)
    assert sent.update is update
    assert sent.residuals == {}
    assert {name: array.shape for name, array in sent.payload.items()} == {"params": (2, 3), "count": (1,)}


def test_whole_numbers_pass_and_entries_do_not_mix() -> None:
    update = Update({"params": (torch.ones(4), 1.0), "control": (-torch.ones(9), 0.5), "n": (torch.tensor([7]), 1.0)})
    sent = Pipeline([Clip(norm=1.0), TopK(count=2)]).transmit(update, {}, {}, STREAMS)
    assert sorted(sent.payload) == ["control", "control.1.positions", "n", "params", "params.1.positions"]
    assert sent.update.payload["n"] == (torch.tensor([7]), 1.0)
    assert sent.update.payload["params"][0].tolist() == pytest.approx([0.5, 0.5, 0, 0])
    assert sent.update.payload["control"][0][:3].tolist() == pytest.approx([-1 / 3, -1 / 3, 0])
    assert sorted(sent.residuals) == ["control", "params"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stages", [[TopK(share=0.05)], [TopK(share=0.05), BFloat16()], [TopK(count=1), Float16()]])
def test_sent_and_residual_add_up(stages: Any, dtype: torch.dtype) -> None:
    """Σ sent + e_T = Σ Δ, whatever was rounded or left out."""
    pipeline, residuals = Pipeline(stages), {}
    wanted, arrived = torch.zeros(40, dtype=dtype), torch.zeros(40, dtype=dtype)
    for number in range(50):
        delta = torch.from_numpy(normal(40, number)).to(dtype)
        sent = pipeline.transmit(Update({"params": (delta, 1.0)}), {}, residuals, STREAMS)
        wanted, arrived, residuals = wanted + delta, arrived + sent.update.payload["params"][0], sent.residuals
    assert residuals["params"].dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(arrived + residuals["params"], wanted, rtol=0, atol=tolerance)
    assert residuals["params"].norm() > 0.1


def test_what_is_cut_off_is_not_sent_later() -> None:
    """Clipping stands before the feedback: what was bounded away is no residual."""
    pipeline, residuals, arrived = Pipeline([Clip(norm=1.0), TopK(count=1)]), {}, torch.zeros(2)
    for _ in range(4):
        sent = pipeline.transmit(Update({"params": (torch.tensor([30.0, 40.0]), 1.0)}), {}, residuals, STREAMS)
        residuals, arrived = sent.residuals, arrived + sent.update.payload["params"][0]
    torch.testing.assert_close(arrived + residuals["params"], torch.tensor([2.4, 3.2]))


class Doubled(Clip):
    """A stage before the feedback that the server has to undo."""

    def encode(self, vector: np.ndarray, streams: Streams) -> Encoded:
        return Encoded(2 * vector)

    def decode(self, encoded: Encoded, dimension: int) -> np.ndarray:
        return encoded.vector / 2


def test_the_residual_is_that_of_what_enters_the_stage_with_feedback() -> None:
    sent = send([Doubled(), TopK(count=1)], torch.tensor([3.0, 1.0]))
    assert sent.payload["params"].tolist() == [6.0]
    assert sent.update.payload["params"][0].tolist() == [3.0, 0.0]
    assert sent.residuals["params"].tolist() == [0.0, 2.0]


def test_no_residual_without_feedback() -> None:
    for stages in ([TopK(count=1, feedback=False)], [Clip()], [Float16()]):
        assert send(stages, torch.ones(5), residuals={"params": torch.ones(5)}).residuals == {}
    assert send([TopK(count=1, feedback=False)], torch.ones(5)).update.payload["params"][0].sum() == 1


def test_a_residual_of_another_length_starts_anew() -> None:
    sent = send([TopK(count=5)], torch.ones(5), residuals={"params": torch.ones(4)})
    assert sent.update.payload["params"][0].tolist() == [1.0] * 5


@pytest.mark.parametrize("stages", STAGE_LISTS, ids=str)
def test_nothing_given_is_written_to(stages: Any) -> None:
    tensor, base, residual = (torch.from_numpy(normal(30, seed)) for seed in range(3))
    copies = tensor.clone(), base.clone(), residual.clone()
    for down in ({}, {"params": base}):
        sent = send(stages, tensor, down, {"params": residual})
        for array in [*sent.payload.values(), sent.update.payload["params"][0].numpy()]:
            array *= 0
    assert all(torch.equal(a, b) for a, b in zip(copies, (tensor, base, residual), strict=True))


# --- orders and settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [[], *STAGE_LISTS], ids=str)
def test_sound_orders_are_taken(stages: Any) -> None:
    assert Pipeline(stages).stages == tuple(stages)


@pytest.mark.parametrize(
    ("stages", "texts"),
    [
        ([Float16(), TopK(count=1)], ["TopK stands behind Float16", "Put TopK before Float16."]),
        ([BFloat16(), Clip()], ["Clip stands behind BFloat16", "Put Clip before BFloat16."]),
        ([TopK(count=1), Clip()], ["Clip stands behind TopK", "Put Clip before TopK."]),
        ([Float16(), BFloat16()], ["BFloat16 stands behind Float16", "Keep one of the two."]),
        ([Clip(), Clip(norm=2.0)], ["stage Clip stands there 2 times", "Keep one of them."]),
        ([Float16(), TopK(count=1), Clip(), Clip()], ["4 problems", "2 times", "Put TopK", "Put Clip before TopK."]),
    ],
)
def test_unsound_orders_are_refused_with_all_faults(stages: Any, texts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline(stages)
    assert all(text in str(caught.value) for text in texts), str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Clip(norm=0.0),
        lambda: Clip(norm=float("nan")),
        lambda: TopK(),
        lambda: TopK(share=0.1, count=3),
        lambda: TopK(share=0.0),
        lambda: TopK(share=1.1),
        lambda: TopK(share=float("nan")),
        lambda: TopK(count=0),
    ],
)
def test_settings_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.mend


@pytest.mark.parametrize("kind", list(STAGES))
def test_every_kind_is_a_stage_and_survives_a_file(kind: str) -> None:
    stage = STAGES.get(kind)(**({"count": 2} if kind == "top_k" else {}))
    assert isinstance(stage, UpdateStage)
    assert read(type(stage), dump(stage)) == stage


# --- in a study ------------------------------------------------------------------------------------------------------

STUDY = """
name = "s"
data = { kind = "digits" }
partition = { kind = "iid", clients = 10 }
run = { cohort = 5, executor = "functional", workers = 2, device = "cpu" }
"""
FEDAVG = '[[methods]]\nkind = "fedavg"\n'


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_study(STUDY + text)
    return str(caught.value)


def test_stages_collector_and_adversary_of_a_study_survive_a_file() -> None:
    study = parse_study(
        STUDY
        + FEDAVG
        + 'stages = [{ kind = "clip", norm = 2.0 }, { kind = "top_k", share = 0.01 }, { kind = "bfloat16" }]\n'
        + 'collector = { kind = "krum", faulty = 1, keep = 2 }\n'
        + '[[methods]]\nkind = "fedprox"\n'
        + '[adversary]\nkind = "sign_flip"\nclients = [1, 7]\nscale = 5.0\n'
    )
    first, second = study.methods
    assert first.stages == (Clip(norm=2.0), TopK(share=0.01), BFloat16())
    assert first.collector == Krum(faulty=1, keep=2)
    assert (second.stages, second.collector) == ((), Averaged())
    assert study.adversary == SignFlip(clients=(1, 7), scale=5.0)
    assert (study.run.executor, study.run.workers, study.run.device) == ("functional", 2, "cpu")
    assert parse_study(format_toml(dump_study(study))) == study
    plain = parse_study(STUDY.replace("workers = 2", 'workers = "auto"') + FEDAVG)
    assert (plain.adversary, plain.run.workers) == (None, None)
    assert parse_study(format_toml(dump_study(plain))) == plain


def test_a_study_is_refused_with_everything_that_is_unsound() -> None:
    text = refusal(
        FEDAVG
        + 'stages = [{ kind = "float16" }, { kind = "top_k", count = 3 }]\ncollector = { kind = "krum", faulty = 2 }\n'
        + '[[methods]]\nkind = "local"\nstages = [{ kind = "clip" }]\n'
        + '[[methods]]\nkind = "fedprox"\ncollector = { kind = "trimmed_mean", faulty = 3 }\n'
        + '[[methods]]\nname = "sound"\nkind = "fedprox"\ncollector = { kind = "trimmed_mean", faulty = 2 }\n'
    )
    assert text.startswith("4 problems")
    assert "[[methods]] 1: stage TopK stands behind Float16" in text
    assert "[[methods]] 1: a cohort of 5 gives 5 updates where Krum with faulty = 2 needs 7. Raise run.cohort" in text
    assert '[[methods]] 2: "local" sends no updates. Leave stages and collector out.' in text
    assert "[[methods]] 3: a cohort of 5 gives 5 updates where TrimmedMean with faulty = 3 needs 7" in text


def test_faults_of_stages_and_runs_have_their_place() -> None:
    assert "[[methods]] 1, [[stages]] 1: share is 2.0" in refusal(FEDAVG + 'stages = [{ kind = "top_k", share = 2.0 }]')
    for stages, shown in (('{ kind = "top_k" }', "a table"), ("3", "3")):
        text = refusal(FEDAVG + f"stages = {stages}")
        assert text == (
            f"[[methods]] 1: stages is {shown}. "
            "Write a list, stages = [{ kind = ... }], or one or several [[methods.stages]]."
        )
    assert parse_study(STUDY + FEDAVG + '[[methods.stages]]\nkind = "clip"').methods[0].stages == (Clip(),)
    assert 'unknown stage kind "topk"' in refusal(FEDAVG + 'stages = [{ kind = "topk" }]')
    assert "[adversary]: share is -1.0" in refusal(FEDAVG + '[adversary]\nkind = "nan"\nshare = -1.0')
    for wrong, said in (("workers = 0", "workers is 0"), ('device = "gpu"', 'device is "gpu"')):
        table = STUDY.replace('workers = 2, device = "cpu"', wrong)
        with pytest.raises(ConfigError, match=said):
            parse_study(table + FEDAVG)


def test_a_cohort_that_krum_cannot_keep_so_many_of_is_refused() -> None:
    text = FEDAVG + 'collector = {{ kind = "krum", keep = {} }}\n'
    assert refusal(text.format(3)) == (
        "[[methods]] 1: keep is 3, but of 5 updates Krum with faulty = 1 keeps at most 2 (n - faulty - 2). "
        "Raise run.cohort, or lower keep."
    )
    parse_study(STUDY + text.format(2))
    parse_study(STUDY.replace("cohort = 5, ", "") + text.format(3))  # whether it can be is known with the clients


def test_a_method_that_wants_single_updates_cannot_be_guarded() -> None:
    class Each(FedAvg):
        needs = "each"

    method = Method(name="each", algorithm=Each(), collector=Krum())
    with pytest.raises(ConfigError, match=r"methods\]\] 1: .*combines single updates itself.*Leave collector out"):
        Study(name="s", data=Digits(), methods=(method,))
    Study(name="s", data=Digits(), methods=(replace(method, collector=Averaged()),))


def test_more_than_half_malicious_clients_may_be_simulated() -> None:
    assert parse_study(STUDY + FEDAVG + '[adversary]\nkind = "huge"\nshare = 0.9').adversary.share == 0.9
