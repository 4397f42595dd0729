from __future__ import annotations

import io
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from rich.console import Console

from rivage.cli.progress import Bar, Interruptible, Lines, progress
from rivage.core.observers import Observer, Silent


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Kept:
    """Remembers what it saw."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event["event"])


STUDY = {"event": "study", "trials": 2, "rounds": 40}
TRIAL = {"event": "trial", "method": "fedavg", "seed": 0, "rounds": 20}


def rounds(first: int, last: int) -> list[dict[str, Any]]:
    return [{"event": "round", "method": "fedavg", "seed": 0, "round": number} for number in range(first, last)]


def console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=100, color_system=None), text


def feed(observer: Observer, clock: Clock, events: list[dict[str, Any]], seconds: float = 0.0) -> None:
    for event in events:
        clock.now += seconds
        observer.on_event(event)


def test_plain_lines_come_about_every_ten_seconds() -> None:
    screen, text = console()
    clock = Clock()
    observer = Lines(screen, clock=clock)
    feed(observer, clock, [STUDY, TRIAL])
    feed(observer, clock, rounds(0, 11), seconds=2.0)
    assert text.getvalue().splitlines() == [
        "fedavg, seed 0: 5 of 40 rounds in all, 0.5 rounds/s, 0:01:10 left",
        "fedavg, seed 0: 10 of 40 rounds in all, 0.5 rounds/s, 0:01:00 left",
    ]


def test_the_mean_is_shown_and_the_end_of_a_trial() -> None:
    screen, text = console()
    clock = Clock()
    observer = Lines(screen, clock=clock)
    evaluation = {"event": "evaluation", "group": "seen", "test": [1.0, 0.0, None], "test_size": [30, 10, 5]}
    unseen = {"event": "evaluation", "group": "unseen", "mean": 0.1}
    feed(observer, clock, [STUDY, TRIAL, *rounds(0, 20), evaluation, unseen, {"event": "trial_end"}])
    assert text.getvalue() == "fedavg, seed 0: done, mean 0.75\n"


def test_a_resumed_trial_starts_where_it_was_and_does_not_count_as_fast() -> None:
    screen, text = console()
    clock = Clock()
    observer = Lines(screen, clock=clock)
    feed(observer, clock, [STUDY, TRIAL, {"event": "trial_end"}, {**TRIAL, "seed": 1}])
    feed(observer, clock, rounds(15, 18), seconds=5.0)
    assert text.getvalue().splitlines()[-1] == "fedavg, seed 1: 37 of 40 rounds in all, 0.2 rounds/s, 0:00:15 left"


def test_notices_are_shown_as_they_are() -> None:
    screen, text = console()
    Lines(screen).on_event({"event": "notice", "text": "[bold]kept[/bold] as written"})
    assert text.getvalue() == "[bold]kept[/bold] as written\n"


def test_events_nobody_knows_are_ignored() -> None:
    screen, text = console()
    Lines(screen).on_event({"event": "something_new"})
    Silent().on_event({"event": "something_new"})
    assert text.getvalue() == ""


def test_quiet_draws_nothing() -> None:
    screen, text = console(terminal=True)
    with progress(screen, quiet=True) as observer:
        feed(observer, Clock(), [STUDY, TRIAL, *rounds(0, 20), {"event": "notice", "text": "x"}])
    assert text.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    screen, text = console(terminal=True)
    with progress(screen, quiet=False) as observer:
        assert isinstance(observer, Bar)
        feed(observer, Clock(), [STUDY, TRIAL, *rounds(0, 20), {"event": "notice", "text": "[b] note"}])
    assert "20/40" in text.getvalue()
    assert "fedavg, seed 0" in text.getvalue()
    assert "[b] note" in text.getvalue()


def test_the_bar_is_removed_when_the_run_fails() -> None:
    screen, _ = console(terminal=True)
    with suppress(ZeroDivisionError), progress(screen, quiet=False):
        raise ZeroDivisionError
    assert not screen._live_stack


def test_elsewhere_lines_are_chosen() -> None:
    screen, _ = console()
    with progress(screen, quiet=False) as observer:
        assert isinstance(observer, Lines)


def test_ctrl_c_stops_after_the_round() -> None:
    kept, told = Kept(), list[str]()
    with Interruptible(kept, told.append) as observer:
        observer.on_event(STUDY)
        observer.on_event(TRIAL)
        signal.raise_signal(signal.SIGINT)
        assert told == ["stopping after this round; press Ctrl-C again to stop at once"]
        with pytest.raises(KeyboardInterrupt):
            observer.on_event(rounds(0, 1)[0])
    assert kept.events == ["study", "trial", "round"], "the inner observer still saw the round"


def test_a_second_ctrl_c_stops_at_once() -> None:
    with Interruptible(Silent(), lambda text: None) as observer:
        observer.on_event(TRIAL)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("events", [[], [STUDY], [STUDY, TRIAL, {"event": "trial_end"}]])
def test_between_trials_ctrl_c_stops_at_once(events: list[dict[str, Any]]) -> None:
    with Interruptible(Silent(), lambda text: None) as observer:
        for event in events:
            observer.on_event(event)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruptible(Silent(), lambda text: None):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
