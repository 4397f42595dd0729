"""Device time and energy: closed forms, units, additivity, any order, any population; who is waited for."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.settings import dump, read
from rivage.simulation.devices import (
    DEVICES,
    Classes,
    DeviceClass,
    Devices,
    LogNormal,
    arrivals,
    cost,
    energy,
    times,
)

SEED = 20_240_607
LAWS = [Classes(), LogNormal(), Classes(classes=(DeviceClass(),)), LogNormal(sigma=0.0)]
ONE = Classes(
    classes=(
        DeviceClass(inference_ms=2.0, down_bps=8e6, up_bps=1e6, compute_w=4.0, receive_w=0.5, send_w=2.0),
    )  # 1 MB/s down, 125 kB/s up
)


# --- closed forms -------------------------------------------------------------------------------------------


def test_time_and_energy_of_one_device_by_hand() -> None:
    device = ONE.attributes(SEED, np.array([5]))
    spent = times(device, 500, 3_000_000, 250_000)
    assert spent.down_s == pytest.approx([3.0])
    assert spent.compute_s == pytest.approx([3 * 500 * 0.002])  # c = 3
    assert spent.up_s == pytest.approx([2.0])
    assert spent.total_s == pytest.approx([8.0])
    joules = energy(device, spent)
    assert [float(part[0]) for part in (joules.compute_j, joules.receive_j, joules.send_j)] == pytest.approx(
        [12, 1.5, 4]
    )
    assert joules.total_j == pytest.approx([17.5])
    assert joules.radio_j == pytest.approx([5.5])
    assert cost(ONE, SEED, np.array([5]), 500, 3_000_000, 250_000) == pytest.approx(
        {"simulated_s": 8.0, "energy_j": 17.5, "energy_radio_j": 5.5}
    )


def test_sizes_are_bytes_and_bandwidths_bits() -> None:
    """The trap: a megabyte at a megabit per second takes eight seconds, a kilobit at a kilobit per second one."""
    device = Classes(classes=(DeviceClass(down_bps=1e6, up_bps=1e3),)).attributes(SEED, np.arange(1))
    spent = times(device, 0, 1_000_000, 125)
    assert (spent.down_s[0], spent.compute_s[0], spent.up_s[0]) == (8.0, 0.0, 1.0)


def test_one_bandwidth_for_both_directions_is_the_sum_over_it() -> None:
    device = Classes(classes=(DeviceClass(down_bps=4e6, up_bps=4e6),)).attributes(SEED, np.arange(3))
    spent = times(device, 0, 700_000, np.array([100, 0, 300_000]))
    assert spent.total_s == pytest.approx(8 * (700_000 + np.array([100, 0, 300_000])) / 4e6)


def test_no_work_costs_nothing() -> None:
    for law in LAWS:
        assert cost(law, SEED, np.arange(9), 0, 0, 0) == {"simulated_s": 0.0, "energy_j": 0.0, "energy_radio_j": 0.0}
        assert cost(law, SEED, np.empty(0, np.int64), 0, 0, 0)["simulated_s"] == 0.0


# --- properties ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_additivity(law: Devices) -> None:
    """Time and energy of two rounds' work are those of the first plus those of the second, term by term."""
    rng = np.random.default_rng(1)
    ids = rng.choice(10**9, 50, replace=False)
    device = law.attributes(SEED, ids)
    work = rng.integers(0, 10**6, (2, 3, 50))
    one, two, both = times(device, *work[0]), times(device, *work[1]), times(device, *work.sum(axis=0))
    np.testing.assert_allclose(one.total_s + two.total_s, both.total_s, rtol=1e-12)
    joules = [energy(device, spent) for spent in (one, two, both)]
    for term in ("compute_j", "receive_j", "send_j", "radio_j", "total_j"):
        first, second, together = (getattr(each, term) for each in joules)
        np.testing.assert_allclose(first + second, together, rtol=1e-12)
    np.testing.assert_allclose(joules[2].compute_j + joules[2].radio_j, joules[2].total_j, rtol=1e-15)


@pytest.mark.parametrize("law", LAWS)
def test_compression_lowers_only_the_radio_terms(law: Devices) -> None:
    device = law.attributes(SEED, np.arange(40))
    plain, packed = times(device, 300, 800_000, 800_000), times(device, 300, 800_000, 25_004)
    assert (packed.down_s == plain.down_s).all()
    assert (packed.compute_s == plain.compute_s).all()
    assert (packed.up_s < plain.up_s).all()
    before, after = energy(device, plain), energy(device, packed)
    assert (after.compute_j == before.compute_j).all()
    assert (after.receive_j == before.receive_j).all()
    assert (after.send_j < before.send_j).all()
    events = [cost(law, SEED, np.arange(40), 300, 800_000, sent) for sent in (800_000, 25_004)]
    saved = [events[0][name] - events[1][name] for name in ("energy_j", "energy_radio_j")]
    assert saved[0] == pytest.approx(saved[1], rel=1e-9)


@given(
    law=st.sampled_from(LAWS),
    ids=st.lists(st.integers(0, 2**62), min_size=1, max_size=20, unique=True),
    data=st.data(),
)
def test_any_query_in_any_order_sees_the_same_devices(law: Devices, ids: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(ids))))
    asked = np.array(ids, np.int64)
    there, here = law.attributes(SEED, asked), law.attributes(SEED, asked[order])
    for name in there.__slots__:
        assert (getattr(there, name)[order] == getattr(here, name)).all()
        assert getattr(law.attributes(SEED, asked[:1]), name)[0] == getattr(there, name)[0]
    samples = np.arange(len(ids)) * 10
    assert cost(law, SEED, asked, samples, 1000, 77) == cost(law, SEED, asked[order], samples[order], 1000, 77)


def test_seeds_and_attributes_are_independent() -> None:
    ids = np.arange(20_000)
    one, other = (np.log(LogNormal().attributes(seed, ids).train_ms) for seed in (SEED, SEED + 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(len(ids))  # false alarm 6e-5 on a fresh seed
    classes = Classes().attributes(SEED, ids).train_ms
    assert abs(np.corrcoef(one, classes)[0, 1]) < 4 / math.sqrt(len(ids))


def test_shares_and_moments() -> None:
    ids = np.arange(100_000) * 9_973  # up to 10^9
    train = Classes().attributes(SEED, ids).train_ms
    for share, inference_ms in ((0.3, 20.0), (0.5, 8.0), (0.2, 3.0)):
        found = np.isclose(train, 3 * inference_ms).mean()
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / len(ids))
    logs = np.log(LogNormal().attributes(SEED, ids).train_ms / 5.0)
    assert abs(logs.mean() - 1.0) < 4 * 0.6 / math.sqrt(len(ids))
    assert abs(logs.std() - 0.6) < 4 * 0.6 / math.sqrt(2 * len(ids))


def test_rounded_thirds_are_shares_and_one_class_is_enough() -> None:
    ids = np.arange(1000)
    speeds = (1.0, 2.0, 3.0)
    thirds, rounded = (
        Classes(classes=tuple(DeviceClass(share=share, inference_ms=speed) for speed in speeds)).attributes(SEED, ids)
        for share in (1 / 3, 0.333)
    )
    assert (thirds.train_ms == rounded.train_ms).all()
    assert (LogNormal(sigma=0.0, mu=0.0).attributes(SEED, ids).train_ms == 5.0).all()


def test_the_floor_and_the_ends_of_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (LogNormal(mu=-30.0).attributes(SEED, np.arange(50)).train_ms == 5.0 * 1e-4).all()
    for end in (0.0, 1 - 2.0**-53):
        monkeypatch.setattr("rivage.simulation.devices.uniforms", lambda *_, end=end: np.full((1, 2), end))
        for law in LAWS:
            assert np.isfinite(law.attributes(SEED, np.zeros(1, np.int64)).train_ms).all()


def test_a_cohort_out_of_a_billion_costs_the_memory_of_a_cohort() -> None:
    peaks = []
    for size in (10**5, 10**9):
        ids = np.linspace(0, size - 1, 10_000).astype(np.int64)
        tracemalloc.start()
        cost(Classes(), SEED, ids, 100, 10**6, 10**6)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 20e6


# --- who is waited for --------------------------------------------------------------------------------------

SECONDS = st.lists(st.one_of(st.floats(0, 100), st.just(math.inf), st.sampled_from([1.0, 2.0])), max_size=12)


@given(SECONDS, st.none() | st.integers(1, 14), st.none() | st.floats(0.1, 120))
def test_arrivals_equal_a_loop(seconds: list[float], keep: int | None, deadline: float | None) -> None:
    """Brute force: let updates come in one by one."""
    limit = math.inf if deadline is None else deadline
    wanted = len(seconds) if keep is None else min(keep, len(seconds))
    used: list[int] = []
    for client in sorted(range(len(seconds)), key=lambda i: (seconds[i], i)):
        if len(used) < wanted and seconds[client] <= limit and seconds[client] < math.inf:
            used.append(client)
    expected = max((seconds[i] for i in used), default=0.0)
    if len(used) < wanted and deadline is not None:
        expected = deadline
    mask, duration = arrivals(np.array(seconds), keep, deadline)
    assert np.flatnonzero(mask).tolist() == sorted(used)
    assert duration == expected


def test_ties_are_kept_in_order() -> None:
    mask, duration = arrivals(np.tile([2.0, 1.0], 100), keep=130)
    assert (np.flatnonzero(mask) == np.sort(np.r_[1:200:2, 0:60:2])).all()
    assert duration == 2.0


def test_the_mth_smallest_among_survivors() -> None:
    ids, samples = np.arange(6), np.array([10, 60, 20, 50, 30, 40])
    seconds = times(ONE.attributes(SEED, ids), samples, 0, 0).total_s
    alive = np.array([True, True, False, True, True, True])
    assert cost(ONE, SEED, ids, samples, 0, 0)["simulated_s"] == pytest.approx(seconds.max())
    assert cost(ONE, SEED, ids, samples, 0, 0, keep=3)["simulated_s"] == pytest.approx(0.006 * 30)
    assert cost(ONE, SEED, ids, samples, 0, 0, keep=3, arrives=alive)["simulated_s"] == pytest.approx(0.006 * 40)
    late = cost(ONE, SEED, ids, samples, 0, 0, arrives=alive, deadline_s=0.2)
    assert late["simulated_s"] == 0.2
    assert late["energy_j"] == pytest.approx(4.0 * 0.006 * 210)  # the lost one has computed too


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_settings_survive_a_file(law: Devices) -> None:
    assert isinstance(law, Devices)
    assert read(type(law), dump(law)) == law


def test_kinds_are_registered() -> None:
    assert {kind: DEVICES.get(kind) for kind in DEVICES} == {"classes": Classes, "lognormal": LogNormal}


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        (DeviceClass, {"inference_ms": 0.0}, "inference_ms is 0"),
        (DeviceClass, {"up_bps": -1.0}, "up_bps is -1"),
        (DeviceClass, {"share": math.nan}, "share is nan"),
        (DeviceClass, {"send_w": -0.1}, "send_w is -0.1"),
        (DeviceClass, {"inference_ms": math.inf}, r"inference_ms is inf\. Give a finite number greater than 0\."),
        (DeviceClass, {"compute_w": math.inf}, r"compute_w is inf\. Give a finite number of at least 0\."),
        (Classes, {"training_factor": math.inf}, "Give a finite number greater than 0"),
        (LogNormal, {"down_bps": math.inf}, "Give a finite number greater than 0"),
        (Classes, {"classes": (DeviceClass(share=0.5),)}, r"add up to 0\.5\. Give shares that add up to 1"),
        (Classes, {"classes": (DeviceClass(share=0.8), DeviceClass(share=0.9))}, r"add up to 1\.7"),
        (Classes, {"classes": (DeviceClass(share=0.33),) * 3}, r"add up to 0\.99"),
        (Classes, {"classes": ()}, "classes is empty"),
        (Classes, {"training_factor": 0.0}, "training_factor is 0"),
        (LogNormal, {"sigma": -1.0}, "sigma is -1"),
        (LogNormal, {"mu": math.inf}, r"mu is inf\. Give a finite number\."),
        (LogNormal, {"floor": 0.0}, "floor is 0"),
    ],
)
def test_impossible_devices_are_refused(kind: type, values: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        kind(**values)


@pytest.mark.parametrize("rule", [{"keep": 0}, {"deadline_s": 0.0}, {"deadline_s": -1.0}])
def test_impossible_rules_are_refused(rule: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(rule))):
        arrivals(np.ones(2), **rule)  # type: ignore[arg-type]
