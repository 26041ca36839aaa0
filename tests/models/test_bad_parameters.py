"""Every constructor names the argument, what it expected, and what came."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import bdtorch as bt

_SIZED = (bt.neurons.LIF, bt.neurons.ExpIF, bt.neurons.AdEx, bt.neurons.Izhikevich, bt.rates.WilsonCowan,
          bt.stimuli.Poisson, bt.stimuli.OrnsteinUhlenbeck)  # fmt: skip
_CHANNELS = (bt.channels.SodiumHH, bt.channels.SodiumTM, bt.channels.PotassiumHH, bt.channels.PotassiumTM)
_POSITIVE = {
    "LIF": {"tau"}, "ExpIF": {"tau", "delta_t"}, "AdEx": {"c", "g_l", "delta_t", "tau_w"}, "Izhikevich": {"a"},
    "WilsonCowan": {"tau_e", "tau_i"}, "OrnsteinUhlenbeck": {"tau"}, "Exponential": {"tau"}, "Alpha": {"tau"},
    "DualExponential": {"tau_rise", "tau_decay"}, "MagnesiumBlock": {"alpha", "beta"}, "HodgkinHuxley": {"c"},
    "TraubMiles": {"c"},
}  # fmt: skip


def _constructors() -> list[Callable[..., Any]]:
    """One ``make(**values)`` for each model, with everything that it needs besides."""

    def sized(model: Any) -> Callable[..., Any]:
        return lambda **values: model(3, **values)

    def full(model: Any, **needed: float) -> Callable[..., Any]:
        return lambda **values: model(**{**needed, **values})

    makes: dict[Any, Callable[..., Any]] = {model: sized(model) for model in _SIZED}
    makes |= {model: full(model) for model in _CHANNELS}
    makes[bt.channels.Leak] = full(bt.channels.Leak, g=1.0, e=-60.0)
    makes[bt.synapses.Exponential] = full(bt.synapses.Exponential, tau=1.0)
    makes[bt.synapses.Alpha] = full(bt.synapses.Alpha, tau=1.0)
    makes[bt.synapses.DualExponential] = full(bt.synapses.DualExponential, tau_rise=1.0, tau_decay=2.0)
    makes[bt.synapses.Conductance] = full(bt.synapses.Conductance, e_rev=0.0)
    makes[bt.synapses.MagnesiumBlock] = full(bt.synapses.MagnesiumBlock)
    return [pytest.param(model, make, name, id=f"{model.__name__}-{name}")
            for model, make in makes.items() for name in _values(model)]  # fmt: skip


def _values(model: Any) -> list[str]:
    parameters = inspect.signature(model.__init__).parameters.values()
    return [p.name for p in parameters if "Value" in str(p.annotation)]


def test_the_table_is_complete() -> None:
    for model in _SIZED:
        assert _values(model)
    assert set(_POSITIVE["AdEx"]) <= set(_values(bt.neurons.AdEx))


@pytest.mark.parametrize(("model", "make", "name"), _constructors())
def test_bad_values(model: Any, make: Callable[..., Any], name: str) -> None:
    label = rf"`{model.__name__}\({name}=...\)`: expected"
    nan = torch.full((3,), math.nan)
    with pytest.raises(ValueError, match=label + " .*, got NaN"):
        make(**{name: math.nan})
    with pytest.raises(ValueError, match=label + " .*, got NaN"):
        make(**{name: nan})
    with pytest.raises(TypeError, match=label + " dtype torch.float32, got torch.float64"):
        make(**{name: torch.ones(3, dtype=torch.float64)})
    with pytest.raises(TypeError, match=label + " dtype torch.float32, got torch.int64"):
        make(**{name: torch.ones(3, dtype=torch.int64)})
    with pytest.raises(TypeError, match=label + " a number, a tensor, an nn.Parameter or an initialiser, got '5'"):
        make(**{name: "5"})
    with pytest.raises(TypeError, match=label + " a number, .*, got True"):
        make(**{name: True})
    if model in _SIZED:
        with pytest.raises(ValueError, match=label + r" a shape that broadcasts to \(3,\), got \(2,\)"):
            make(**{name: torch.ones(2)})
        with pytest.raises(ValueError, match=label + r" a shape that broadcasts to \(3,\), got \(1, 3\)"):
            make(**{name: torch.ones(1, 3)})
    if name in _POSITIVE.get(model.__name__, ()):
        for bad in (0.0, -1.0, math.inf):
            with pytest.raises(ValueError, match=label + rf" a finite number above 0, got {bad!r}"):
                make(**{name: bad})
        with pytest.raises(ValueError, match=label + " finite values above 0, got a minimum of -1"):
            make(**{name: torch.tensor([1.0, -1.0, 2.0])})


@pytest.mark.parametrize("model", _SIZED, ids=lambda model: model.__name__)
@pytest.mark.parametrize(
    "bad",
    [0, -1, (2, 0), True, ("a",), 1.5],
)
def test_bad_sizes(model: Any, bad: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"`{model.__name__}\(size=...\)`: expected a positive integer or a tuple of them"
    ):
        model(bad)


@pytest.mark.parametrize("model", [*_SIZED, *_CHANNELS], ids=lambda model: model.__name__)
def test_unknown_names_and_dtypes(model: Any) -> None:
    size = (2,) if model in _SIZED else ()
    with pytest.raises(TypeError, match="unexpected keyword argument 'tau_membrane'"):
        model(*size, tau_membrane=1.0)
    with pytest.raises(
        TypeError, match=rf"`{model.__name__}\(dtype=...\)`: expected a floating dtype, got torch.int32"
    ):
        model(*size, dtype=torch.int32)


_SPIKING = [bt.neurons.LIF, bt.neurons.AdEx, bt.neurons.HodgkinHuxley, bt.neurons.TraubMiles]


@pytest.mark.parametrize("model", _SPIKING, ids=lambda model: model.__name__)
def test_bad_parts_of_neurons(model: Any) -> None:
    name = model.__name__
    for bad in (bt.surrogate.Arctan, "arctan", 1.0):
        with pytest.raises(TypeError, match=rf"`{name}\(surrogate=...\)`: expected an object such as .*, got"):
            model(1, surrogate=bad)
    for bad in (bt.integrate.RK4, "rk4"):
        with pytest.raises(TypeError, match=rf"`{name}\(integrator=...\)`: expected an object such as .*, got"):
            model(1, integrator=bad)


def test_bad_membranes() -> None:
    membrane = bt.neurons.ConductanceBased
    with pytest.raises(
        ValueError, match=r"`ConductanceBased\(channels=...\)`: expected at least one channel, got none"
    ):
        membrane(1, {})
    with pytest.raises(TypeError, match=r"`ConductanceBased\(channels\['Na'\]\)`: expected a Channel, got"):
        membrane(1, {"Na": bt.channels.SodiumHH})  # type: ignore[dict-item]
    for name in ("c", "v_th", "v_init"):
        with pytest.raises(ValueError, match=rf"`HodgkinHuxley\({name}=...\)`: expected .*, got NaN"):
            bt.neurons.HodgkinHuxley(1, **{name: math.nan})
    with pytest.raises(ValueError, match=r"`TraubMiles\(c=...\)`: expected a finite number above 0, got -200.0"):
        bt.neurons.TraubMiles(1, c=-200.0)


def test_bad_time_constants_and_spreads() -> None:
    message = r"`DualExponential\(tau_rise=...\)`: expected values below tau_decay=2.0, got 2.0"
    with pytest.raises(ValueError, match=message):
        bt.synapses.DualExponential(2.0, 2.0)
    with pytest.raises(ValueError, match=r"`OrnsteinUhlenbeck\(sigma=...\)`: expected at least 0, got -1.0"):
        bt.stimuli.OrnsteinUhlenbeck(1, sigma=-1.0)
    for make, name in (
        *((channel, channel.__name__) for channel in _CHANNELS),
        (lambda g: bt.channels.Leak(g, 0.0), "Leak"),
    ):
        with pytest.raises(ValueError, match=rf"`{name}\(g=...\)`: expected at least 0, got -1.0"):
            make(g=-1.0)
        assert make(g=0.0).g == 0.0  # a channel that is blocked
    with pytest.raises(ValueError, match=r"`MagnesiumBlock\(mg=...\)`: expected at least 0 mM, got -1.0"):
        bt.synapses.MagnesiumBlock(mg=-1.0)
    with pytest.raises(ValueError, match=r"`Poisson\(rate=...\)`: expected rates of at least 0 Hz, got -1.0"):
        bt.stimuli.Poisson(1, rate=-1.0)


def test_bad_stimuli() -> None:
    step, ramp, nan = bt.stimuli.Step, bt.stimuli.Ramp, math.nan
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: step(1.0, start=nan), r"`Step\(start=...\)`: expected a number, got NaN"),
        (lambda: step(1.0, start=2.0, stop=2.0), r"`Step\(stop=...\)`: expected a time after start=2 ms, got 2.0"),
        (lambda: step(1.0, stop=nan), r"`Step\(stop=...\)`: expected a time after start=0 ms, got nan"),
        (lambda: step(nan), r"`Step\(amplitude=...\)`: expected a number, got NaN"),
        (lambda: step(torch.tensor([1.0, nan])), r"`Step\(amplitude=...\)`: expected numbers, got NaN"),
        (lambda: step(1.0, baseline=nan), r"`Step\(baseline=...\)`: expected a number, got NaN"),
        (lambda: ramp(nan, 1.0, 0.0, 1.0), r"`Ramp\(first=...\)`: expected a number, got NaN"),
        (lambda: ramp(0.0, nan, 0.0, 1.0), r"`Ramp\(last=...\)`: expected a number, got NaN"),
        (lambda: ramp(0.0, 1.0, 3.0, 1.0), r"`Ramp\(stop=...\)`: expected a time after start=3 ms, got 1.0"),
        (lambda: ramp(0.0, 1.0, 0.0, math.inf), r"`Ramp\(stop - start\)`: expected a finite number above 0, got inf"),
        (lambda: ramp(0.0, 1.0, -math.inf, 0.0), r"`Ramp\(stop - start\)`: expected a finite number above 0, got inf"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
