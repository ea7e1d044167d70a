"""What a log shows while one waits."""

import logging
from types import SimpleNamespace

import pytest

from likeness import console
from likeness.console import progress, terminal


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still until a test moves it."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_log_gets_done_of_total_rate_and_time_left(clock, caplog):
    caplog.set_level(logging.INFO)
    with progress("looking", 100) as advance:
        for now, done in ((105, 10), (110, 10), (115, 5), (121, 25), (125, 50)):
            clock.now = now
            advance(done)
    assert caplog.messages == [
        "looking: 20 of 100, 2 images/s, 40 s left",  # 20 in 10 s; 80 are left
        "looking: 50 of 100, 2.4 images/s, 21 s left",  # 50 in 21 s: 2.38/s; 50 are left
    ]


def test_the_interval_is_ten_seconds_and_the_unit_is_told(clock, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    assert console._SECONDS_BETWEEN_LINES == 10
    monkeypatch.setattr(console, "_SECONDS_BETWEEN_LINES", 1.0)
    with progress("training", 4, "epochs") as advance:
        for _ in range(4):
            clock.now += 0.5
            advance()
    assert caplog.messages == ["training: 2 of 4, 2 epochs/s, 1 s left", "training: 4 of 4, 2 epochs/s, 0 s left"]


def test_a_rate_is_no_zero_and_no_long_fraction(clock, caplog):
    caplog.set_level(logging.INFO)
    for done in (3, 12_345):
        with progress("looking", 20_000) as advance:
            clock.now += 10
            advance(done)
    slow, fast = caplog.messages
    assert "0.3 images/s" in slow
    assert "1,234 images/s" in fast


def test_what_is_quick_says_nothing(clock, caplog):
    caplog.set_level(logging.INFO)
    with progress("looking", 2) as advance:
        advance()
        advance()
    assert caplog.messages == []


def test_a_terminal_gets_a_bar(monkeypatch, capsys, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("looking", 3) as advance:
        advance(2)
    assert "looking" in capsys.readouterr().out
    assert caplog.messages == []


def test_an_error_inside_passes_through():
    with pytest.raises(RuntimeError, match="inside"), progress("looking", 3):
        raise RuntimeError("inside")


def test_a_table_in_a_file_is_wide_enough(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    assert terminal().width == 110


def test_a_bar_that_may_wait_is_not_shown_for_what_is_soon_done(clock, monkeypatch):
    started = []
    monkeypatch.setattr(console.Console, "is_terminal", True)
    monkeypatch.setattr(console.Progress, "start", lambda bar: started.append(clock.now))
    for moves, shown in (((1.0, 0.5), []), ((1.0, 1.5), [102.5])):
        clock.now = 100.0
        with progress("pictures", 10, after=2.0) as advance:
            for move in moves:
                clock.now += move
                advance()
        assert started == shown
    with progress("pictures", 10):
        assert len(started) == 2  # at once
