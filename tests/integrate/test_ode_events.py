"""Events at precise times: spikes off the grid, resets, ends, and their gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch.integrate as integrate
from bdtorch.integrate import DOP853, DormandPrince5, Event, IntegrationError, Rodas4, Tsit5, odeint

F64 = torch.float64

TAU, C, CURRENT, THRESHOLD = 10.0, 250.0, 1000.0, 15.0
FIRST = 4.700036292457356  # ms: the spike time of this neuron, in NEST's test_iaf_ps_dc_accuracy.py
SPIKE = Event(lambda t, y, *args: y[..., 0] - THRESHOLD, direction=1, reset=lambda t, y, *args: torch.zeros_like(y))


def _leaky(t: Tensor, y: Tensor) -> Tensor:
    return -y / TAU + CURRENT / C


def _zero(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


@pytest.mark.parametrize(("method", "tolerance"), [(DOP853(), 1e-13), (Tsit5(), 1e-12), (Rodas4(), 1e-9)])
def test_spike_times_of_a_leaky_neuron(method: Any, tolerance: float) -> None:
    accuracy = 1e-12 if method.order > 4 else 1e-9
    solution = odeint(_leaky, _zero(1), [0.0, 20.0], method=method, rtol=accuracy, atol=accuracy, events=SPIKE)
    (spikes,) = solution.events
    expected = FIRST * torch.arange(1, 5, dtype=torch.float64)
    torch.testing.assert_close(spikes.t, expected, rtol=4 * tolerance, atol=0.0)
    torch.testing.assert_close(spikes.y, torch.full((4, 1), THRESHOLD, dtype=torch.float64), rtol=1e-8, atol=0.0)
    rest = 20.0 - 4 * FIRST
    assert float(solution.y[-1]) == pytest.approx(CURRENT * TAU / C * -math.expm1(-rest / TAU), rel=1e-7)


def test_spike_times_do_not_depend_on_outputs_or_steps() -> None:
    times = torch.linspace(0.0, 20.0, 41, dtype=torch.float64)
    for options in ({}, {"max_step": 0.3}, {"first_step": 2.0}):
        solution = odeint(_leaky, _zero(1), times, method=DOP853(), rtol=1e-11, atol=1e-11, events=SPIKE, **options)
        torch.testing.assert_close(
            solution.events[0].t[0], torch.tensor(FIRST, dtype=torch.float64), rtol=1e-12, atol=0.0
        )
        phase = times % FIRST
        torch.testing.assert_close(solution.y[:, 0], 40.0 * -torch.expm1(-phase / TAU), rtol=1e-7, atol=1e-7)


def test_every_trajectory_spikes_at_times_of_its_own() -> None:
    currents = torch.tensor([[1000.0], [300.0], [500.0]], dtype=torch.float64)

    def f(t: Tensor, y: Tensor, current: Tensor) -> Tensor:
        return -y / TAU + current / C

    solution = odeint(
        f,
        _zero(3, 1),
        [0.0, 30.0],
        args=(currents,),
        batch_dims=1,
        method=DOP853(),
        rtol=1e-11,
        atol=1e-11,
        events=SPIKE,
    )
    (spikes,) = solution.events
    assert spikes.trajectory.shape == (len(spikes.t), 1)
    for k, current in ((0, 1000.0), (2, 500.0)):
        period = -TAU * math.log1p(-THRESHOLD * C / (TAU * current))
        mine = spikes.t[spikes.trajectory[:, 0] == k]
        expected = period * torch.arange(1, len(mine) + 1, dtype=torch.float64)
        assert len(mine) == int(30.0 / period)
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=0.0)
    assert not (spikes.trajectory[:, 0] == 1).any()  # 300 pA reach 12 mV


def test_a_terminal_event_ends_its_trajectory_only() -> None:
    y0 = torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)  # height and speed of two falling stones

    def fall(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[:, 1], torch.full_like(y[:, 1], -9.81)], -1)

    ground = Event(lambda t, y: y[:, 0], direction=-1, terminal=True)
    solution = odeint(fall, y0, [0.0, 0.2, 0.5, 1.0], batch_dims=1, events=[ground], rtol=1e-9, atol=1e-9)
    expected = torch.tensor([math.sqrt(2 / 9.81), math.sqrt(4 / 9.81)], dtype=torch.float64)
    torch.testing.assert_close(solution.events[0].t, expected, rtol=1e-10, atol=0.0)
    assert solution.y[2, 0].isnan().all() and solution.y[2, 1].isfinite().all() and solution.y[3].isnan().all()


def test_directions_and_events_without_consequence() -> None:
    circle = lambda t, y: torch.stack([y[1], -y[0]])  # noqa: E731
    y0 = torch.tensor([0.0, 1.0], dtype=torch.float64)
    events = [Event(lambda t, y: y[0], direction=d) for d in (1, -1, 0)]
    up, down, both = odeint(circle, y0, [0.0, 10.0], rtol=1e-10, atol=1e-10, events=events, method=DOP853()).events
    pi = torch.tensor(math.pi, dtype=torch.float64)
    torch.testing.assert_close(up.t, 2 * pi * torch.tensor([1.0], dtype=torch.float64), rtol=1e-8, atol=0)
    torch.testing.assert_close(down.t, pi * torch.tensor([1.0, 3.0], dtype=torch.float64), rtol=1e-8, atol=0)
    torch.testing.assert_close(both.t, pi * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), rtol=1e-8, atol=0)
    backward = odeint(circle, y0, [0.0, -4.0], events=events[0], method=DOP853(), rtol=1e-10, atol=1e-10).events[0]
    assert backward.t.numel() == 1 and float(backward.t) == pytest.approx(-math.pi)  # a direction counts along the way


def test_gradients_of_spike_times_match_the_closed_form() -> None:
    current = torch.tensor(1000.0, dtype=torch.float64, requires_grad=True)

    def f(t: Tensor, y: Tensor, current: Tensor) -> Tensor:
        return -y / TAU + current / C

    solution = odeint(f, _zero(1), [0.0, 20.0], args=(current,), method=DOP853(), rtol=1e-11, atol=1e-11, events=SPIKE)
    # d/dI of n times the period -tau log(1 - theta C / (tau I))
    share = THRESHOLD * C / (TAU * CURRENT)
    for n in (1, 2, 4):
        (gradient,) = torch.autograd.grad(solution.events[0].t[n - 1], current, retain_graph=True)
        assert float(gradient) == pytest.approx(-n * TAU * share / CURRENT / (1 - share), rel=1e-7)


def test_adaptive_exponential_neuron_against_lsodar() -> None:
    # Brette & Gerstner (2005), doi:10.1152/jn.00686.2005; the values are those of NEST's test_aeif_lsodar.dat.
    capacity, leak, rest, theta, width, coupling, slow, current = 200.0, 11.0, -70.0, -50.0, 2.0, 3.0, 300.0, 420.0

    def f(t: Tensor, y: Tensor) -> Tensor:
        v, w = y.unbind(-1)
        spike = leak * width * torch.exp((v - theta) / width)
        return torch.stack(
            [(leak * (rest - v) + spike - w + current) / capacity, (coupling * (v - rest) - w) / slow], -1
        )

    peak = Event(lambda t, y: y[0], direction=1, reset=lambda t, y: torch.stack([torch.full_like(y[0], -58.0), y[1]]))
    times = [0.0, 3.258843, 9.477423, 17.892549, 60.0]
    y0 = torch.tensor([-70.0, 5.0], dtype=torch.float64)
    runs = [odeint(f, y0, times, method=m, rtol=1e-9, atol=1e-9, events=peak) for m in (DormandPrince5(), DOP853())]
    v = torch.tensor([-63.80932, -54.66745, -44.05061], dtype=torch.float64)
    torch.testing.assert_close(runs[0].y[1:4, 0], v, rtol=5e-4, atol=0.0)
    w = torch.tensor([5.049492, 7.147980], dtype=torch.float64)
    torch.testing.assert_close(runs[0].y[[1, 3], 1], w, rtol=1e-4, atol=0.0)
    assert len(runs[0].events[0].t) >= 2
    torch.testing.assert_close(runs[0].events[0].t, runs[1].events[0].t, rtol=1e-7, atol=0.0)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"direction": 2}, ValueError, "expected -1, 0 or 1, got 2"),
        ({"terminal": True, "reset": lambda t, y: y}, ValueError, "expected None where the event is terminal"),
        ({"reset": 3}, TypeError, "expected a function of"),
    ],
)
def test_wrong_events(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Event(lambda t, y: y[0], **wrong)


def test_events_want_an_adaptive_method_and_a_value_for_each_trajectory() -> None:
    with pytest.raises(ValueError, match="expected an adaptive method"):
        odeint(_leaky, _zero(1), [0.0, 1.0], method=integrate.RK4(), dt=0.1, events=SPIKE)
    with pytest.raises(
        ValueError, match=r"Event\(function=...\)`: expected a floating tensor of shape \(\), .* of \(1,\)"
    ):
        odeint(_leaky, _zero(1), [0.0, 1.0], events=Event(lambda t, y: y))
    with pytest.raises(TypeError, match="expected Event objects"):
        odeint(_leaky, _zero(1), [0.0, 1.0], events=[3])


def _falling(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[..., 1], torch.full_like(y[..., 1], -1.0)], -1)  # height and velocity


def test_a_solution_that_begins_at_the_zero_comes_back_to_it() -> None:
    y0 = torch.tensor([[0.0, 10.0], [5.0, 0.0]], dtype=F64)  # one from the ground, one from above
    for direction in (-1, 0):
        ground = Event(lambda t, y: y[..., 0], direction=direction, terminal=True)
        happened = odeint(_falling, y0, [0.0, 100.0], batch_dims=1, events=ground).events[0]
        assert happened.trajectory.flatten().tolist() == [1, 0]
        torch.testing.assert_close(happened.t, torch.tensor([math.sqrt(10.0), 20.0], dtype=F64))


def test_nothing_happens_where_a_solution_only_begins_at_the_zero() -> None:
    rising = lambda t, y: torch.ones_like(y)  # noqa: E731
    y0 = torch.zeros(1, dtype=F64)
    assert len(odeint(rising, y0, [0.0, 2.0], events=Event(lambda t, y: y[0])).events[0].t) == 0
    assert len(odeint(rising, y0, [2.0, 0.0], events=Event(lambda t, y: y[0])).events[0].t) == 0


def test_a_bouncing_ball_bounces() -> None:
    y0 = torch.tensor([0.5, 0.0], dtype=F64)
    bounce = Event(lambda t, y: y[0], direction=-1, reset=lambda t, y: torch.stack([0.0 * y[0], -0.5 * y[1]]))
    happened = odeint(_falling, y0, [0.0, 2.6], events=bounce).events[0]
    torch.testing.assert_close(happened.t, torch.tensor([1.0, 2.0, 2.5], dtype=F64), rtol=0, atol=1e-9)
    torch.testing.assert_close(happened.y[:, 1], torch.tensor([-1.0, -0.5, -0.25], dtype=F64), rtol=0, atol=1e-9)
    with pytest.raises(IntegrationError, match=r"without end at t = 3, as where a bouncing ball comes to rest"):
        odeint(_falling, y0, [0.0, 5.0], events=bounce)  # 1 + 1 + 1/2 + 1/4 + ... = 3


def test_a_function_that_crosses_twice_within_a_step() -> None:
    y0 = torch.tensor([0.0, 4.0], dtype=F64)  # a parabola, over which one step leads
    at = [Event(lambda t, y: y[0] - 3.5, direction=direction) for direction in (0, 1, -1)]
    both, up, down = odeint(_falling, y0, [0.0, 10.0], events=at).events
    for found, expected in ((both, [1.0, 7.0]), (up, [1.0]), (down, [7.0])):
        torch.testing.assert_close(found.t, torch.tensor(expected, dtype=F64))


def test_events_of_the_same_time_all_happen() -> None:
    y0, rising = torch.zeros(3, dtype=F64), lambda t, y: torch.ones_like(y)
    down = [
        Event(lambda t, y, k=k: y[k] - 1.0, reset=lambda t, y, k=k: torch.where(torch.arange(3) == k, 0.0, y))
        for k in range(2)
    ]
    solution = odeint(rising, y0, [0.0, 1.0, 2.5], events=down)
    for happened in solution.events:
        torch.testing.assert_close(happened.t, torch.tensor([1.0, 2.0], dtype=F64))
    torch.testing.assert_close(solution.y[1], torch.ones(3, dtype=F64))  # the state before the resets
    torch.testing.assert_close(solution.y[-1], torch.tensor([0.5, 0.5, 2.5], dtype=F64))


@pytest.mark.parametrize("jump", [1.0, 5.0])
def test_what_a_reset_lands_on_or_jumps_over_has_not_been_crossed(jump: float) -> None:
    first = Event(lambda t, y: y[0] - 1.0, direction=1, reset=lambda t, y: y + jump)
    solution = odeint(lambda t, y: torch.ones_like(y), torch.zeros(1, dtype=F64), [0.0, 2.5],
                      events=[first, Event(lambda t, y: y[0] - 2.0, direction=1)])  # fmt: skip
    assert [len(happened.t) for happened in solution.events] == [1, 0]
    assert solution.y[-1].item() == pytest.approx(2.5 + jump)


def test_second_and_third_derivatives_of_an_event_time_and_through_resets() -> None:
    # y' = w - y from 0 reaches 1 at log(w / (w - 1)).
    def first(w: Tensor, reset: Any = None) -> Any:
        event = Event(lambda t, y, w: y[0] - 1.0, reset=reset)
        options: dict[str, Any] = {"args": (w,), "events": event, "method": DOP853(), "rtol": 1e-9, "atol": 1e-11}
        return odeint(lambda t, y, w: w - y, _zero(1), [0.0, 0.8], **options)

    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    value, found = first(w).events[0].t[0], []
    for _ in range(3):
        (value,) = torch.autograd.grad(value, w, create_graph=True)
        found.append(float(value.detach()))
    assert found == pytest.approx([-0.5, 0.75, -1.75], rel=1e-6)

    def after_resets(w: Tensor) -> tuple[Tensor, Tensor]:
        solution = first(w, lambda t, y, w: 0.0 * y + 0.1 * w)
        return solution.y, solution.events[0].t

    assert torch.autograd.gradcheck(after_resets, (w,))
    assert torch.autograd.gradgradcheck(after_resets, (w,), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("after", "error", "message"),
    [
        (lambda y: y[:1], ValueError, r"expected a state of shape \(2,\) and torch.float64, got \(1,\)"),
        (lambda y: y.float(), ValueError, r"expected .* got \(2,\) and torch.float32"),
        (lambda y: {"a": y}, ValueError, "expected a state of the structure of y"),
        (lambda y: 1.0, TypeError, "expected a state of tensors, got float"),
    ],
)
def test_a_reset_to_another_kind_of_state_is_refused(after: Any, error: type[Exception], message: str) -> None:
    event = Event(lambda t, y: y[0] - 0.5, reset=lambda t, y: after(y))
    with pytest.raises(error, match=r"Event\(reset=...\)`: " + message):
        odeint(lambda t, y: torch.ones_like(y), _zero(2), [0.0, 1.0], events=event)


def test_an_event_needs_a_sign() -> None:
    with pytest.raises(ValueError, match=r"expected a floating tensor .* whose sign changes, got torch.bool"):
        odeint(lambda t, y: torch.ones_like(y), _zero(2), [0.0, 1.0], events=Event(lambda t, y: y[0] > 0.5))
    with pytest.raises(TypeError, match=r"Event\(terminal=...\)`: expected True or False"):
        Event(lambda t, y: y[0], terminal=3)  # type: ignore[arg-type]
