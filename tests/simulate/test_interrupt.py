"""Ctrl-C, and the progress bar."""

import math
import os
import signal
import threading
import time

import pytest
import torch

import bdtorch as bt
from bdtorch.simulate._interrupt import Interrupt


@pytest.fixture
def listening():
    """Ctrl-C as Python answers it; a shell lets its background jobs, and so perhaps this one, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    Interrupt.last = -math.inf
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("loop", ["reference", "native"])
def test_ctrl_c_keeps_what_was_recorded(loop):
    system = bt.neurons.LIF(10, v_th=20.0)
    bt.simulate(system, 25.0, dt=0.1, duration=1.0, record={"s": bt.spikes()}, loop=loop)  # compiles
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.warns(UserWarning, match="interrupted at t = .* ms; the solution holds what was done"):
        sol = bt.simulate(system, 25.0, dt=0.1, duration=1e10, record={"s": bt.spikes()}, loop=loop, progress=False)
    timer.join()
    assert sol.interrupted and 0 < sol.steps < 1e11
    again = bt.simulate(system, 25.0, dt=0.1, duration=sol.t_end, record={"s": bt.spikes()}, loop=loop, progress=False)
    assert torch.equal(sol.state.v, again.state.v)
    assert torch.equal(sol["s"].pairs, again["s"].pairs)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def pressed_after(*seconds):
    """Ctrl-C after so many seconds each."""

    def press():
        for gap in seconds:
            time.sleep(gap)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def run_all(runs, duration, interrupted=()):
    """One run after the other, and those that were interrupted into a list."""
    system = bt.neurons.LIF(1000)
    for _ in range(runs):
        sol = bt.simulate(
            system, 25.0, dt=0.1, duration=duration, record={"s": bt.spikes()}, loop="native", progress=False
        )
        if sol.interrupted:
            interrupted.append(sol)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_ends_a_program_of_short_runs():
    """Each is one chunk, which ends before anybody asks whether to stop."""
    run_all(1, 6.0)  # compiles
    thread, interrupted = pressed_after(0.3), []
    with pytest.raises(KeyboardInterrupt):
        run_all(100_000, 6.0, interrupted)
    thread.join()
    assert not interrupted
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("listening")
@pytest.mark.filterwarnings("ignore:simulate was interrupted")
def test_a_second_ctrl_c_ends_a_program_of_long_runs():
    run_all(1, 6.0)
    thread, interrupted = pressed_after(0.5, 0.6), []
    with pytest.raises(KeyboardInterrupt):
        run_all(3, 1e9, interrupted)
    thread.join()
    assert len(interrupted) <= 1  # none where the machine is so busy that the second comes before the first is seen


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("loop", ["reference", "native"])
def test_ctrl_c_ends_training(loop):
    tau = torch.nn.Parameter(torch.tensor(20.0))
    system = bt.neurons.LIF(200, tau=tau, surrogate=bt.surrogate.SuperSpike(10.0))
    bt.simulate(system, 25.0, dt=1.0, duration=10.0, loop=loop)  # compiles
    thread = pressed_after(0.3)
    with pytest.raises(KeyboardInterrupt):
        bt.simulate(system, 25.0, dt=1.0, duration=1e7, loop=loop, record={"mean": lambda state, out: state.v.mean()})
    thread.join()


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        sol = bt.simulate(bt.neurons.LIF(10), 25.0, dt=0.1, duration=200.0, loop="reference", progress=False)
        timer.join()
        assert sol.steps == 2000 and not sol.interrupted
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_simulate_runs_outside_the_main_thread():
    results = []
    run = lambda: results.append(bt.simulate(bt.neurons.LIF(2), 25.0, dt=0.1, duration=1.0))  # noqa: E731
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results[0].steps == 10


def test_progress_bar_counts_biological_time(capsys):
    bt.simulate(bt.neurons.LIF(2), 25.0, dt=0.1, duration=30.0, loop="reference", progress=True)
    shown = capsys.readouterr().err
    assert "simulate" in shown and "30.0/30.0" in shown
    bt.simulate(bt.neurons.LIF(2), 25.0, dt=0.1, duration=30.0, loop="reference")
    assert capsys.readouterr().err == ""
