"""Systems: parameters, sizes, initial states and their seeds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import bdtorch as bt
from bdtorch._system import broadcasts, initial_state, whole_steps


def test_parameters_are_floats_buffers_or_parameters() -> None:
    trained = nn.Parameter(torch.full((2, 1), 5.0))
    cell = bt.neurons.LIF(
        (2, 3), tau=trained, v_rest=torch.tensor([1.0, 2.0, 3.0]), v_th=20, r=bt.init.Uniform(1.0, 2.0)
    )
    assert isinstance(cell.v_th, float) and cell.v_th == 20.0
    assert dict(cell.named_parameters()) == {"tau": trained}
    assert set(cell.state_dict()) == {"tau", "v_rest", "r"}
    assert cell.r.shape == (2, 3) and bool(((cell.r >= 1) & (cell.r < 2)).all())
    state = initial_state(cell, (4,))
    assert state.v.shape == (4, 2, 3) and torch.equal(state.v[3, 1], torch.tensor([1.0, 2.0, 3.0]))


def test_a_drawn_parameter_is_fixed_and_a_drawn_initial_value_is_not() -> None:
    uniform = bt.init.Uniform(0.0, 1.0)
    one, other = bt.neurons.LIF(5, r=uniform, v_init=uniform), bt.neurons.LIF(5, r=uniform, v_init=uniform)
    assert torch.equal(one.r, other.r)
    a, b, c = (initial_state(cell, seed=seed).v for cell, seed in ((one, 1), (other, 1), (one, 2)))
    assert torch.equal(a, b) and not torch.equal(a, c) and not torch.equal(a, one.r)


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (lambda z: bt.neurons.AdEx(500, v_init=z, w_init=z), ("v", "w")),
        (lambda z: bt.neurons.Izhikevich(500, v_init=z, u_init=z), ("v", "u")),
        (lambda z: bt.rates.WilsonCowan(500, e_init=z, i_init=z), ("e", "i")),
    ],
    ids=["AdEx", "Izhikevich", "WilsonCowan"],
)
def test_initial_values_of_all_variables_and_seeds_are_independent(make: Any, fields: tuple[str, str]) -> None:
    cell = make(bt.init.Normal(0.0, 1.0))
    draws = [getattr(initial_state(cell, seed=seed), name) for seed in (0, 1, 2) for name in fields]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert float(correlation.abs().max()) < 5.0 / math.sqrt(500)


def test_populations_of_a_network_draw_independently() -> None:
    cell = lambda: bt.neurons.LIF(500, v_init=bt.init.Normal(0.0, 1.0))  # noqa: E731
    net = bt.Network({"A": cell(), "B": cell()})
    state = initial_state(net, dt=0.1, seed=0)
    assert abs(float(torch.corrcoef(torch.stack([state["A"].v, state["B"].v]))[0, 1])) < 5.0 / math.sqrt(500)
    alone = bt.Network({"B": cell()})
    assert torch.equal(initial_state(alone, dt=0.1, seed=0)["B"].v, state["B"].v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_that_of_construction(dtype: torch.dtype) -> None:
    cell = bt.neurons.LIF(2, dtype=dtype, r=bt.init.Uniform(0.0, 1.0))
    assert cell.dtype == dtype and cell.r.dtype == dtype and initial_state(cell).v.dtype == dtype
    assert cell.to(torch.float64).dtype == torch.float64 and cell.r.dtype == torch.float64


def test_context_goes_where_it_is_named() -> None:
    class Curious(bt.DynamicalSystem):
        def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0, dt: float | None = None) -> Any:
            return {"seed": torch.tensor(seed), "dt": torch.tensor(dt)}

        def step(self, state: Any, inputs: Any, t: torch.Tensor, dt: float) -> Any:
            return state, state["dt"]

    state = initial_state(Curious(1), dt=0.25, seed=7)
    assert int(state["seed"]) == 7 and float(state["dt"]) == 0.25


def test_calling_a_system_is_stepping_it() -> None:
    cell = bt.neurons.LIF(2)
    arguments = (cell.init_state(), 30.0, torch.zeros((), dtype=torch.float64), 0.5)
    assert torch.equal(cell(*arguments)[0].v, cell.step(*arguments)[0].v)


def test_a_system_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        bt.DynamicalSystem(3)  # type: ignore[abstract]
    with pytest.raises(TypeError, match="abstract"):
        bt.Flow(3)  # type: ignore[abstract]


def test_broadcasting_and_whole_steps() -> None:
    assert broadcasts((), (3,)) and broadcasts((1,), (3,)) and broadcasts((3,), (2, 3)) and broadcasts((2, 1), (2, 3))
    assert not broadcasts((2,), (3,)) and not broadcasts((1, 3), (3,)) and not broadcasts((3,), (1,))
    assert (
        whole_steps(0.3, 0.1, "x") == 3 and whole_steps(1e6, 0.1, "x") == 10_000_000 and whole_steps(0.0, 0.1, "x") == 0
    )
    with pytest.raises(ValueError, match=r"`x`: expected a multiple of dt=0.1 ms, got 0.25 ms"):
        whole_steps(0.25, 0.1, "x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bt.init.Normal(math.nan, 1.0), r"`Normal\(mean=...\)`: expected a finite number, got nan"),
        (lambda: bt.init.Normal(0.0, -1.0), r"`Normal\(std=...\)`: expected a finite non-negative number, got -1.0"),
        (lambda: bt.init.Uniform(1.0, 0.0), r"`Uniform\(high=...\)`: expected at least low=1.0, got 0.0"),
        (lambda: bt.init.Uniform(-math.inf, 0.0), r"`Uniform\(low=...\)`: expected a finite number, got -inf"),
        (lambda: bt.init.LogNormal(0.0, 1.0), r"`LogNormal\(mean=...\)`: expected a positive number, got 0.0"),
    ],
)
def test_bad_initialisers(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_initialisers_have_their_moments() -> None:
    shape, n = (200, 500), 100_000
    options = {"dtype": torch.float64, "device": torch.device("cpu")}
    for made, mean, std in (
        (bt.init.Normal(3.0, 2.0), 3.0, 2.0),
        (bt.init.Uniform(1.0, 5.0), 3.0, 4.0 / math.sqrt(12.0)),
        (bt.init.LogNormal(3.0, 1.5), 3.0, 1.5),
    ):
        x = made(shape, seed=1, **options)
        assert x.shape == shape
        assert abs(float(x.mean()) - mean) < 4.0 * std / math.sqrt(n)
        assert float(x.std()) == pytest.approx(std, rel=0.03)
        assert torch.equal(x, made(shape, seed=1, **options)) and not torch.equal(x, made(shape, seed=2, **options))
    assert float(bt.init.LogNormal(3.0, 1.5)(shape, seed=1, **options).min()) > 0
