"""One line over a whole run: what is done, what runs, how long it may still take, and quiet logs."""

import io
import sys

import pytest

from lassi_lib import progress as module
from lassi_lib.progress import Overall, finished, progress, running, say, started


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    hand = Clock()
    monkeypatch.setattr(module.time, "monotonic", hand.monotonic)
    return hand


@pytest.fixture
def loud(monkeypatch):
    monkeypatch.delenv("LASSI_QUIET")


def test_time_left_follows_from_what_the_steps_took_before(clock):
    with Overall({"a": 100.0, "b": 200.0, "c": None}) as run:
        assert run.seconds_left() == pytest.approx(450.0)  # c counts as the mean of the others
        with running("a", "encoder Smiling"):
            clock.now += 100.0
            assert run.seconds_left() == pytest.approx(350.0)
        assert run.seconds_left() == pytest.approx(350.0)
        with running("b", "certify"):
            clock.now += 4000.0
            assert run.seconds_left() > 10 * 150.0  # this machine is slower than what was recorded
        assert run.seconds_left() > 10 * 150.0
        finished("c")
        assert run.seconds_left() == 0.0


def test_a_first_step_that_goes_alone_and_takes_longer_does_not_multiply_the_rest(clock):
    with Overall(dict.fromkeys(range(100), 240.0), workers=4) as run:  # 100 minutes
        started(0, "glow")
        clock.now += 480.0
        assert 100 * 60 < run.seconds_left() < 250 * 60


def test_a_step_that_takes_longer_than_before_is_not_said_to_end_at_once(clock):
    begun = clock.now
    with Overall({"end points": 480.0, "notebook": 10.0}, workers=3) as run:
        started("end points", "endpoints")
        for minutes, at_least in ((7, 0), (20, 12), (60, 52)):
            clock.now = begun + minutes * 60.0
            assert 60 * at_least <= run.seconds_left() <= 60 * (at_least + 2)
        finished("end points")
        assert run.seconds_left() < 120.0


def test_several_workers_share_what_is_left():
    with Overall(dict.fromkeys("abcd", 100.0), workers=4) as run:
        assert run.seconds_left() == pytest.approx(100.0, abs=1.0)


def test_time_left_does_not_jump_while_steps_take_what_they_took_before(clock):
    with Overall(dict.fromkeys("abcdef", 100.0), workers=2) as run:
        left = [run.seconds_left()]
        for pair in ("ab", "cd", "ef"):
            for key in pair:
                started(key, key)
            for _ in range(4):
                clock.now += 25.0
                left.append(run.seconds_left())
            for key in pair:
                finished(key)
            assert run.seconds_left() == left[-1]
        assert left == pytest.approx([300.0 - 25.0 * i for i in range(13)])


def test_the_line_names_two_or_three_running_steps_and_counts_the_others(clock):
    with Overall(dict.fromkeys("abcde")) as run:
        for key in "abc":
            started(key, f"encoder {key}")
        assert run.line().endswith("now: encoder a (0 s), encoder b (0 s), encoder c (0 s)")
        started("d", "encoder d")
        assert run.line().endswith("now: encoder a (0 s), encoder b (0 s), 2 more")
        for key in "ab":
            finished(key)
        started("a", "news that came late")
        assert run.line().endswith("now: encoder c (0 s), encoder d (0 s)")


def test_without_records_the_rate_so_far_is_taken(clock):
    with Overall(dict.fromkeys("abcd")) as run:
        assert run.seconds_left() is None and "not known yet" in run.line()
        with running("a", "first"):
            clock.now += 30.0
        assert run.seconds_left() == pytest.approx(90.0)


def test_the_line_says_what_runs_and_since_when(clock):
    with Overall({"a": 60.0, "b": 3600.0}) as run:
        clock.now += 60.0
        finished("a")
        with running("b", "notebook 01"):
            clock.now += 125.0
            assert (
                run.line()
                == "1 of 2 steps, 3 min 05 s so far, about 57 min 55 s left; now: notebook 01 (2 min 05 s)"
            )
        assert run.line().startswith("2 of 2 steps, 3 min 05 s so far, about 0 s left")


def test_a_step_that_raises_is_not_done():
    with pytest.raises(ZeroDivisionError), Overall({"a": 1.0}) as run, running("a", "x"):
        1 / 0  # noqa: B018
    assert "0 of 1" in run.line() and module._overall is None


def test_without_a_run_steps_are_silent_and_lines_are_printed(capsys):
    with running("a", "x"):
        started("a", "x")
        finished("a")
    say("hello")
    assert capsys.readouterr() == ("hello\n", "")


def test_on_a_terminal_there_is_one_bar_and_loops_do_not_draw_their_own(monkeypatch, loud, capsys):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Overall({"a": 1.0, "b": 1.0}) as run, running("a", "encoder"):
        for _ in progress(range(4), label="inner loop"):
            pass
        with progress(total=4, label="by hand") as bar:
            bar.update(2)
            bar.refresh()
            assert run.line().endswith("50%")
        run._draw()
        say("a line above")
    text = screen.getvalue()
    assert "0 of 2 steps" in text and "encoder" in text
    assert "inner loop" not in text and "by hand" not in text and "\n" not in text.strip()
    assert "a line above" in capsys.readouterr().out


def test_in_a_log_file_a_line_comes_once_in_a_while(monkeypatch, loud, capsys):
    monkeypatch.setattr(module, "_LOG_EVERY", 0.02)
    with Overall({"a": 1.0}) as run, running("a", "encoder"):
        for _ in progress(range(3), label="inner loop"):
            run._stop.wait(0.05)
    written = capsys.readouterr().err
    assert "inner loop" not in written
    lines = written.splitlines()
    assert 2 <= len(lines) < 20 and all(line.startswith("0 of 1 steps") for line in lines)


def test_a_short_loop_writes_nothing_into_a_log_file(loud, capsys):
    assert list(progress(range(3), label="short")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_quiet_is_quiet(monkeypatch, capsys):
    monkeypatch.setattr(module, "_LOG_EVERY", 0.01)
    with Overall({"a": 1.0}) as run, running("a", "encoder"):
        list(progress(range(3)))
        run._stop.wait(0.05)
    assert capsys.readouterr().err == ""
