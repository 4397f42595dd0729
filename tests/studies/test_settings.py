from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.toml import format_toml, parse_toml
from rivage.data.partition import Dirichlet
from rivage.federated.algorithm import Phase
from rivage.federated.fedavg import FedAvg, FedSGD
from rivage.federated.fedprox import FedProx
from rivage.federated.guarded import Guarded
from rivage.federated.registry import ALGORITHMS
from rivage.simulation.availability import Always, Markov
from rivage.simulation.devices import DEVICES
from rivage.studies.settings import Study, dump_study, load_study, override_study, parse_study
from rivage.studies.study_tables import Evaluation, Method, Run

DESIGN = """
name = "hospitals"
[data]
kind = "tables"
folder = "sites/"
target = "disease"
[partition]
kind = "dirichlet"
clients = 20
alpha = 0.3
[availability]
kind = "markov"
mean = 0.7
correlation = 0.5
[task]
model = "mlp"
loss = "cross_entropy"
metric = "accuracy"
[work]
epochs = 2
batch_size = "all"
[[methods]]
kind = "local"
[[methods]]
kind = "fedavg"
learning_rate = 0.05
[[methods]]
name = "close"
kind = "fedprox"
mu = 1
[methods.work]
updates = 7
[run]
rounds = 60
cohort = 10
seeds = [0, 1, 2]
dtype = "float64"
log = "none"
[evaluation]
every = 5
unseen_clients = 0.2
"""
SMALL = '[data]\nkind = "tables"\nfolder = "x"\ntarget = "y"\n'


def small(methods: str, rest: str = "") -> str:
    return f'name = "s"\n{SMALL}{methods}\n{rest}'


def as_text(study: Study) -> str:
    return format_toml(dump_study(study))


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_study(text, "s.toml")
    return str(caught.value)


def test_the_study_of_the_design_page() -> None:
    study = parse_study(DESIGN, "study.toml")
    assert [(method.name, method.kind) for method in study.methods] == [
        ("local", "local"),
        ("fedavg", "fedavg"),
        ("close", "fedprox"),
    ]
    assert study.partition == Dirichlet(clients=20, alpha=0.3)
    assert study.availability == Markov(mean=0.7, correlation=0.5)
    assert study.work == Phase(epochs=2, batch_size=None)
    assert study.methods[1].algorithm == FedAvg(learning_rate=0.05, work=study.work)
    assert study.methods[2].algorithm == FedProx(mu=1.0, work=Phase(updates=7))
    assert study.run == Run(rounds=60, cohort=10, seeds=(0, 1, 2), dtype="float64", log="none")
    assert study.evaluation == Evaluation(every=5, unseen_clients=0.2)
    assert parse_study(as_text(study)) == study


def test_defaults() -> None:
    study = parse_study(small('[[methods]]\nkind = "fedavg"'))
    assert study.run == Run(rounds=50, cohort=None, seeds=(0,), dtype="float32", log=None)
    assert study.evaluation == Evaluation(every=10, unseen_clients=0.0, validation=0.15, test=0.2)
    assert study.availability == Always()
    assert (study.partition, study.shift) == (None, None)
    assert study.methods[0].algorithm == FedAvg()


phases = st.builds(
    Phase,
    epochs=st.integers(0, 9),
    updates=st.integers(0, 9),
    batch_size=st.none() | st.integers(1, 99),
    batches=st.sampled_from(["shuffle", "poisson", "endless"]),
    train=st.lists(st.sampled_from(["body", "head"]), max_size=2).map(tuple),
)
rates = st.floats(1e-6, 10)
algorithms = (
    st.builds(FedAvg, learning_rate=rates, work=phases)
    | st.builds(FedProx, learning_rate=st.floats(1e-6, 0.1), mu=rates, work=phases)
    | st.builds(FedSGD, learning_rate=rates)
)
names = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=6)
runs = st.builds(
    Run,
    rounds=st.integers(0, 9),
    cohort=st.none() | st.integers(1, 9),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True).map(tuple),
    log=st.none() | st.sampled_from(["none", "meta", "all", "clients:[1, 2]"]),
    workers=st.none() | st.integers(1, 9),
    remembered=st.none() | st.integers(1, 9),
)


@given(
    st.lists(st.builds(Method, name=names, algorithm=algorithms), min_size=1, max_size=4, unique_by=lambda m: m.name),
    phases,
    runs,
    names,
)
def test_settings_to_toml_to_settings_is_the_identity(methods: list[Method], work: Phase, run: Run, name: str) -> None:
    base = parse_study(small('[[methods]]\nkind = "fedavg"'))
    study = replace(base, name=name, methods=tuple(methods), work=work, run=run)
    assert parse_study(as_text(study)) == study


@pytest.mark.parametrize("kind", sorted(ALGORITHMS.builtin))
def test_every_method_round_trips_with_its_defaults(kind: str) -> None:
    companion = '[[methods]]\nkind = "local"\nname = "companion"\n'
    study = parse_study(small(f'[[methods]]\nkind = "{kind}"\n{companion}'))
    assert study.methods[0].kind == kind
    assert parse_study(as_text(study)) == study


@pytest.mark.parametrize("kind", sorted(DEVICES.builtin))
def test_devices_round_trip_with_their_defaults(kind: str) -> None:
    text = small('[[methods]]\nkind = "fedavg"')
    study = parse_study(text, overrides=[f'devices.kind="{kind}"'])
    assert study.devices == DEVICES.get(kind)()
    assert parse_study(as_text(study)) == study
    assert parse_study(text).devices is None


def test_a_resolved_study_still_follows_its_work_table() -> None:
    study = parse_study(DESIGN)
    changed = override_study(study, ["work.epochs=9"])
    assert changed.work == Phase(epochs=9, batch_size=None)
    assert [method.algorithm.work for method in changed.methods[:2]] == [changed.work, changed.work]
    assert changed.methods[2] == study.methods[2], "a work table of its own is not touched"


def test_a_method_without_work_ignores_the_work_table() -> None:
    study = parse_study(small('[[methods]]\nkind = "fedsgd"', "[work]\nepochs = 5"))
    assert study.methods[0].algorithm == FedSGD()


def test_a_faulty_work_table_is_reported_once() -> None:
    text = refusal(small('[[methods]]\nkind = "fedavg"\n[[methods]]\nkind = "local"', "[work]\nepoch = 5"))
    assert text == (
        's.toml, [work]: unknown key "epoch". [work] knows: epochs, updates, batch_size, batches, train, denominator, '
        'clip, noise, delta. Did you mean "epochs"?'
    )
    text = refusal(small('[[methods]]\nkind = "fedavg"').replace("[data]", "work = 3\n[data]"))
    assert text == "s.toml: work is 3. It must be a table."


def test_overrides_address_methods_by_name_kind_or_position_from_one() -> None:
    for address in ("fedavg", "2"):
        study = parse_study(DESIGN, overrides=[f"methods.{address}.learning_rate=0.5"])
        assert study.methods[1].algorithm.learning_rate == 0.5
    assert parse_study(DESIGN, overrides=["methods.close.mu=2"]).methods[2].algorithm.mu == 2.0


def test_a_fault_names_the_overrides_that_led_to_it() -> None:
    with pytest.raises(ConfigError, match=r"^s.toml with --set run.rounds=x, \[run\]: rounds is"):
        parse_study(DESIGN, "s.toml", ["run.rounds=x"])


def test_no_override_leaves_the_study_alone() -> None:
    study = parse_study(DESIGN)
    assert override_study(study, []) is study


def test_a_study_without_a_name_is_called_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "wards.toml"
    path.write_text(DESIGN.replace('name = "hospitals"', ""))
    assert load_study(path).name == "wards"
    assert load_study(path, ["name=other"]).name == "other"


def test_a_method_is_called_by_its_kind_unless_named() -> None:
    assert Method(algorithm=FedAvg()).name == "fedavg"
    assert Method(name="x", algorithm=FedAvg()).kind == "fedavg"


def test_cross_checks_are_reported_together() -> None:
    text = refusal(
        small(
            """
            [[methods]]
            kind = "fedavg"
            [[methods]]
            kind = "fedavg"
            [[methods]]
            kind = "guarded"
            among = ["fedavgg", "chooser"]
            [[methods]]
            name = "chooser"
            kind = "guarded"
            """
        )
    )
    assert text.splitlines() == [
        "s.toml: 3 problems",
        '  [[methods]] 1 and 2: 2 methods have the name "fedavg". Give each a name of its own: name = ...',
        '  [[methods]] 3: among names "fedavgg", but no method is called so. It may name: fedavg. '
        'Did you mean "fedavg"?',
        '  [[methods]] 3: among names "chooser", which itself chooses among others. It may name: fedavg.',
    ]


def test_a_chooser_needs_something_to_choose() -> None:
    assert "has no method to choose" in refusal(small('[[methods]]\nkind = "guarded"'))
    study = parse_study(small('[[methods]]\nkind = "guarded"\namong = ["local"]\n[[methods]]\nkind = "local"'))
    assert study.methods[0].algorithm == Guarded(among=("local",))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"rounds": -1}, "rounds is -1"),
        ({"cohort": 0}, "cohort is 0"),
        ({"seeds": ()}, "seeds is []"),
        ({"seeds": (1, 1)}, "seeds is [1, 1]"),
        ({"seeds": (-1,)}, "seeds is [-1]"),
        ({"seeds": (2**64,)}, f"seeds is [{2**64}]"),
        ({"log": "some"}, 'log is "some"'),
        ({"workers": 0}, "workers is 0"),
        ({"remembered": 0}, "remembered is 0"),
    ],
)
def test_values_of_run_are_checked(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Run(**changes)
    assert caught.value.what == fault
    assert caught.value.mend


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"every": 0}, "every is 0"),
        ({"unseen_clients": 1.0}, "unseen_clients is 1.0"),
        ({"test": -0.1}, "test is -0.1"),
        ({"validation": float("nan")}, "validation is nan"),
        ({"validation": 0.5, "test": 0.5}, "validation 0.5 and test 0.5 leave no record to train on"),
    ],
)
def test_values_of_evaluation_are_checked(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Evaluation(**changes)
    assert caught.value.what == fault


@pytest.mark.parametrize("name", ["", "  ", "two\nlines"])
def test_names_are_visible(name: str) -> None:
    with pytest.raises(ConfigError, match="name is"):
        replace(parse_study(DESIGN), name=name)


@pytest.mark.parametrize("name", [" x", "two\nlines"])
def test_method_names_are_visible(name: str) -> None:
    with pytest.raises(ConfigError, match="name is"):
        Method(name=name, algorithm=FedAvg())


def test_the_dump_leaves_out_what_the_work_table_says() -> None:
    table = dump_study(parse_study(DESIGN))
    assert ["work" in method for method in table["methods"]] == [False, False, True]
    assert parse_toml(format_toml(table)) == table
