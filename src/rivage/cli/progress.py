"""How a run looks on a terminal while it lasts; all of it goes to standard error.

On a terminal one line is drawn over and over: rounds done, rounds per second, time left. Elsewhere (a pipe, a batch
system) a plain line appears about every ten seconds, and one at the end of each trial.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from rivage.core.observers import Observer, Silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["Bar", "Interruptible", "Lines", "progress"]

_PERIOD_S = 10.0


@contextmanager
def progress(console: Console, *, quiet: bool) -> Iterator[Observer]:
    """The observer that fits where standard error goes; its bar is removed at the end, also when the run fails."""
    if quiet:
        yield Silent()
    elif not console.is_terminal:
        yield Lines(console)
    else:
        with _bar(console) as drawing:
            yield Bar(drawing)


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=console,
        transient=True,
    )


class _Tally:
    """Counts rounds over the trials of a study; a resumed trial starts at the round it had reached."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.total = self.before = self.done = self.planned = 0
        self.label = self.score = ""
        self.unit, self.alike = "rounds", True
        self.first: tuple[float, int] | None = None
        self.started = clock()

    def see(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "study":  # there may be several after one another
                self.before = self.done = self.planned = 0
                self.label, self.score, self.first = "", "", None
                self.total, self.unit = int(event["rounds"]), str(event.get("unit", "rounds"))
                self.alike, self.started = bool(event.get("alike", True)), self.clock()
            case "trial":
                self.done, self.planned = 0, int(event["rounds"])
                self.label, self.score = f"{event['method']}, seed {event['seed']}", ""
            case "round":
                self._reach(int(event["round"]) + 1)
            case "point":
                self._reach(int(event["done"]))
                self.score = str(event["score"])
            case "evaluation" if event.get("group", "seen") == "seen":
                self.score = _score(event)
            case "trial_end":
                self.before, self.done = self.before + self.planned, 0

    def _reach(self, done: int) -> None:
        self.done = done
        if self.first is None:
            self.first = (self.clock(), self.before + done)

    @property
    def rounds(self) -> int:
        return self.before + self.done

    @property
    def rate(self) -> float:
        """Rounds per second since the first round seen; 0 while unknown."""
        if self.first is None:
            return 0.0
        started, rounds = self.first
        elapsed = self.clock() - started
        return (self.rounds - rounds) / elapsed if elapsed > 0 else 0.0

    @property
    def text(self) -> str:
        """``12.5 rounds/s, 0:00:31 left``; of what is not alike, and tells nothing of the rest, ``0:00:31 so far``."""
        if not self.alike:
            return f"{_span(self.clock() - self.started)} so far"
        if not self.rate:
            return ""
        left = max(self.total - self.rounds, 0) / self.rate
        return f"{_short(self.rate)} {self.unit}/s, {_span(left)} left"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _short(rate: float) -> str:
    return f"{rate:.3g}" if rate < 1000 else f"{rate:,.0f}"


def _score(event: Mapping[str, Any]) -> str:
    mean = event.get("mean")
    if mean is None and "test" in event:
        from rivage.core.summaries import weighted_mean

        mean = weighted_mean(event["test"], event["test_size"])
    return "" if mean is None else f"{event.get('metric', 'mean')} {mean:.4g}"


class Lines:
    """Plain lines, for standard error that is not a terminal."""

    def __init__(
        self, console: Console, *, period_s: float = _PERIOD_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._period_s, self._clock = console, period_s, clock
        self._tally = _Tally(clock)
        self._last = clock()

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Print what is due."""
        self._tally.see(event)
        match event["event"]:
            case "notice":
                self._print(str(event["text"]))
            case "round" | "point" if self._clock() - self._last >= self._period_s:
                self._print(self._status())
            case "trial_end":
                self._print(f"{self._tally.label}: done{_after(self._tally.score)}")

    def _status(self) -> str:
        tally = self._tally
        done = f"{tally.rounds} of {tally.total} {tally.unit} in all"
        label = f"{tally.label}: " if tally.label else ""  # what has no trials has none
        return f"{label}{done}{_after(tally.score)}{_after(tally.text)}"

    def _print(self, text: str) -> None:
        self._last = self._clock()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _after(text: str) -> str:
    return f", {text}" if text else ""


class Bar:
    """A Rich progress bar, for a terminal."""

    def __init__(self, drawing: Progress, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._drawing, self._tally = drawing, _Tally(clock)
        self._task: TaskID | None = None

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Change the bar; Rich limits how often it is drawn."""
        tally = self._tally
        tally.see(event)
        if event["event"] == "notice":
            self._drawing.console.print(str(event["text"]), markup=False, highlight=False)
        if event["event"] == "study":
            if self._task is not None:
                self._drawing.remove_task(self._task)
            self._task = self._drawing.add_task("", total=tally.total, status="")
        if self._task is not None:
            status = ", ".join(part for part in (tally.text, tally.score) if part)
            self._drawing.update(self._task, completed=tally.rounds, description=tally.label, status=status)


class Interruptible:
    """Lets a run end at a safe point when Ctrl-C is pressed, and at once when it is pressed again.

    Between two rounds nothing is half done; before the first trial there is nothing to keep.
    """

    def __init__(self, inner: Observer, tell: Callable[[str], None]) -> None:
        self._inner, self._tell = inner, tell
        self._asked = self._playing = False
        self._previous: Any = None

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Pass it on, then stop if that was asked for.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
        """
        self._inner.on_event(event)
        if event["event"] in ("trial", "trial_end"):
            self._playing = event["event"] == "trial"
        if self._asked:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._playing:
            raise KeyboardInterrupt
        self._asked = True
        self._tell("stopping after this round; press Ctrl-C again to stop at once")

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        """Give Ctrl-C back."""
        signal.signal(signal.SIGINT, self._previous)
