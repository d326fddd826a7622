"""Progress: one bar over a whole run, bars of single loops elsewhere; silent when `LASSI_QUIET` is set."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_LOG_EVERY = 60.0  # seconds between lines where there is no terminal
_NAMED = 2  # running steps that the line names
_overall: Overall | None = None  # the run's bar, while one is shown


def progress(
    iterable: Iterable | None = None, *, total: int | None = None, label: str = "", unit: str = "it"
) -> Any:
    """Wrap `iterable` (or count by hand with ``.update``) in the study's progress bar.

    Plain text bars (not `tqdm.auto`): a notebook widget would be dead in a rendered page. In a
    log file, where there is no terminal, a line is written every 30 seconds instead of ten a second. Inside a
    run (`Overall`) there is no second bar: its only line says how far this loop is.
    """
    terminal = sys.stderr.isatty()
    return (_Inner if _overall else tqdm)(
        iterable,
        total=total,
        desc=label,
        unit=unit,
        disable=_quiet(),
        mininterval=0.2 if terminal else 30.0,
        delay=0.0 if terminal else 30.0,
        dynamic_ncols=True,
        leave=False,
    )


def _quiet() -> bool:
    return bool(os.environ.get("LASSI_QUIET"))


class _Inner(tqdm):
    """A loop inside a run: it counts, and the run's own line shows it."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if _overall:
            _overall.inner = f"{self.n / self.total:.0%}" if self.total and msg != "" else ""


class Overall:
    """One bar over all steps of a run, and how long the rest may take.

    On a terminal it is one line, renewed every second; elsewhere a line is written every minute.

    Parameters
    ----------
    steps : mapping
        Key of each step -> seconds it took before, or None where that is not known (then the mean of the
        others is taken).
    workers : int
        How many steps run at once.
    """

    def __init__(self, steps: Mapping[str, float | None], *, workers: int = 1) -> None:
        known = [s for s in steps.values() if s is not None]
        self.known, mean = bool(known), sum(known) / len(known) if known else 1.0
        self.left = {key: mean if s is None else s for key, s in steps.items()}
        self.n, self.total, self.workers = len(steps), sum(self.left.values()), workers
        self.running: dict[str, tuple[str, float]] = {}  # key -> what it is, since when
        self.inner = ""
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._begun = time.monotonic()
        self._bar: tqdm | None = None

    def __enter__(self) -> Overall:
        global _overall
        self._begun = time.monotonic()
        terminal = sys.stderr.isatty()
        if not _quiet():
            if terminal:
                form = "{percentage:3.0f}%|{bar:16}| {desc}"
                self._bar = tqdm(total=self.total, bar_format=form, dynamic_ncols=True, leave=False)
            every = 1.0 if terminal else _LOG_EVERY
            threading.Thread(target=self._tick, args=(every,), daemon=True).start()
        _overall = self
        return self

    def __exit__(self, *_: object) -> None:
        global _overall
        _overall = None
        self._stop.set()
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def start(self, key: str, what: str) -> None:
        """Say that a step begins; what has ended already does not."""
        with self._lock:
            if key in self.left:
                self.running[key] = (what, time.monotonic())
        self._draw()

    def finish(self, key: str) -> None:
        """Say that a step has ended."""
        with self._lock:
            self.running.pop(key, None)
            self.left.pop(key, None)
            self.inner = ""
        self._draw()

    def say(self, text: str) -> None:
        """Print a line of its own, above the bar."""
        with self._lock:
            if self._bar is not None:
                tqdm.write(text, file=sys.stdout)
            else:
                print(text, flush=True)

    def seconds_left(self) -> float | None:
        """Return how long the rest may take, or None if nothing is known of it yet.

        It is what the steps took before, times how much slower this run has been so far. A running step counts
        as done in the part that its time so far is of what it took before; one that has taken longer may go on
        for as long as it is late.
        """
        now, rest, late = time.monotonic(), sum(self.left.values()), 0.0
        if not self.left:
            return 0.0
        if self.known:  # otherwise nothing says how far a running step is
            took = {key: now - since for key, (_, since) in self.running.items()}
            rest -= sum(min(seconds, self.left[key]) for key, seconds in took.items())
            late = max((seconds - self.left[key] for key, seconds in took.items()), default=0.0)
        expected, spent = (self.total - rest) / self.workers, now - self._begun
        # this much of what was recorded outweighs the first minutes, in which one step may have to go first
        trust = max(60.0, 0.1 * self.total / self.workers) if self.known else 0.0
        if not expected + trust:
            return None
        return max(late, rest / self.workers * (spent + trust) / (expected + trust))

    def line(self) -> str:
        """Return how far the run is, in words."""
        with self._lock:
            now, left = time.monotonic(), self.seconds_left()
            about = "time left not known yet" if left is None else f"about {_clock(left)} left"
            text = f"{self.n - len(self.left)} of {self.n} steps, {_clock(now - self._begun)} so far, {about}"
            names = [f"{what} ({_clock(now - since)})" for what, since in self.running.values()]
            if len(names) > _NAMED + 1:
                names[_NAMED:] = [f"{len(names) - _NAMED} more"]
            inner = f" {self.inner}" * bool(self.inner)
            return "; now: ".join(filter(None, [text, ", ".join(names)])) + inner

    def _draw(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.n = self.total - sum(self.left.values())
                self._bar.set_description_str(self.line())

    def _tick(self, every: float) -> None:
        while not self._stop.wait(every):
            if sys.stderr.isatty():
                self._draw()
            else:
                print(self.line(), file=sys.stderr, flush=True)


@contextmanager
def running(key: str, what: str) -> Iterator[None]:
    """Mark a step of the run, if there is one, as what runs now; it counts as done unless it raises."""
    bar = _overall
    if bar is None:
        yield
        return
    bar.start(key, what)
    yield
    bar.finish(key)


def started(key: str, what: str) -> None:
    """Mark a step of the run, if there is one, as running: for steps that run elsewhere."""
    if _overall is not None:
        _overall.start(key, what)


def finished(key: str) -> None:
    """Count a step of the run, if there is one, as done: for steps that run elsewhere."""
    if _overall is not None:
        _overall.finish(key)


def say(text: str) -> None:
    """Print a line; above the run's bar, if there is one."""
    if _overall is not None:
        _overall.say(text)
    else:
        print(text, flush=True)


def _clock(seconds: float) -> str:
    """Return 42 s, 3 min 20 s or 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
