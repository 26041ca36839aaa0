"""What `sdeint` says of arguments that it cannot take."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.integrate import (
    SRA1,
    SRI1,
    Additive,
    BrownianPath,
    Calculus,
    Diagonal,
    EulerHeun,
    EulerMaruyama,
    General,
    Milstein,
    Scalar,
    StochasticHeun,
    sdeint,
)


def _f(t: Tensor, y: Tensor) -> Tensor:
    return -y


def _g(t: Tensor, y: Tensor) -> Tensor:
    return 0.1 * y


_Y0 = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
_T = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)


def _solve(**changed: Any) -> Tensor:
    arguments: dict[str, Any] = {"f": _f, "g": _g, "y0": _Y0, "t": _T, "dt": 0.25, **changed}
    return sdeint(**arguments).y


def _rotation(t: Tensor, y: Tensor) -> Tensor:
    """Two processes on three variables that do not commute."""
    return torch.stack([0.5 * y.roll(1, -1), 0.5 * y * torch.tensor([1.0, 2.0, 3.0]).double()], -1)


_COMMUTATIVE = General(processes=2, commutative=True)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"method": "milstien"}, TypeError, "got 'milstien'; did you mean Milstein()"),
        ({"method": "heun"}, TypeError, "did you mean StochasticHeun()"),
        ({"method": Milstein}, TypeError, "did you mean Milstein()?"),
        ({"method": bt.integrate.RK4()}, TypeError, "expected an object such as EulerMaruyama(), got RungeKutta"),
        ({"noise": "diagonal"}, TypeError, "noise=...)`: expected Diagonal(), Additive(), Scalar() or General()"),
        ({"calculus": "ito"}, TypeError, "calculus=...)`: expected Calculus.ITO or Calculus.STRATONOVICH, got 'ito'"),
        ({"method": EulerHeun()}, ValueError, "expected one for Ito equations, got EulerHeun, for Stratonovich"),
        ({"calculus": Calculus.STRATONOVICH, "method": SRI1()}, ValueError, "expected one for Stratonovich equations"),
        ({"method": SRA1()}, ValueError, "expected Additive noise for AdditiveRungeKutta, got Diagonal"),
        ({"method": SRI1(), "noise": General(processes=2)}, ValueError, "expected Diagonal or Scalar noise"),
        ({"method": SRI1(), "noise": Additive(processes=2)}, ValueError, "got Additive with an axis of processes"),
        ({"method": Milstein(), "noise": General(processes=2)}, ValueError, "expected commutative noise for Milstein"),
        ({"dt": -0.25}, ValueError, "dt=...)`: expected a finite number above 0, got -0.25"),
        ({"dt": torch.tensor([0.1, 0.2])}, ValueError, "dt=...)`: expected a finite number above 0"),
        ({"dt": 0.3}, ValueError, "t=...)`: expected whole multiples of dt=0.3 after t[0]=0, got 0.5 at position 1"),
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, ValueError, "t=...)`: expected increasing times, got 1 before 0.5"),
        ({"t": torch.tensor(1.0)}, ValueError, "t=...)`: expected a 1-D tensor of times, got shape ()"),
        ({"t": 1.0}, TypeError, "t=...)`: expected a 1-D tensor or a sequence of times, got 1.0"),
        ({"f": None}, TypeError, "f=...)`: expected a function of (t, y, *args), got None"),
        ({"g": 0.1}, TypeError, "g=...)`: expected a function of (t, y, *args), got 0.1"),
        ({"t": torch.tensor([0.0, float("nan")])}, ValueError, "t=...)`: expected finite times"),
        ({"y0": ()}, ValueError, "y0=...)`: expected at least one tensor"),
        ({"y0": {"v": 1.0}}, TypeError, "y0=...)`: expected tensors, got float for 'v'"),
        ({"y0": torch.ones(3, dtype=torch.int64)}, TypeError, "y0=...)`: expected float32 or float64 throughout"),
        ({"y0": (_Y0, _Y0.float())}, TypeError, "expected float32 or float64 throughout, got torch.float32 for '1'"),
        ({"batch_shape": (2,)}, ValueError, "y0=...)`: expected leading axes batch_shape=(2,), got shape (3,)"),
        ({"f": lambda t, y: (y,)}, ValueError, "f=...)`: expected the structure of y0"),
        ({"f": lambda t, y: y[:2]}, ValueError, "f=...)`: expected shape (3,), got (2,)"),
        ({"f": lambda t, y: y.float()}, TypeError, "f=...)`: expected torch.float64, got torch.float32"),
        ({"f": lambda t, y: 0.0}, TypeError, "f=...)`: expected tensors, got float"),
        ({"f": lambda t, y: torch.log(y - 2.0)}, FloatingPointError, "finite values, got nan at t = 0, element (0,)"),
        ({"g": lambda t, y: y.mean()}, ValueError, "g=...)`: expected shape (3,), got ()"),
        ({"noise": General(processes=2)}, ValueError, "g=...)`: expected shape (3, 2), got (3,)"),
        ({"g": lambda t, y: y / (y - 2.0)}, FloatingPointError, "finite values, got inf at t = 0, element (1,)"),
        ({"noise": Diagonal(torch.eye(2))}, ValueError, "expected a correlation matrix of shape (3, 3) for this y0"),
        ({"noise": Additive()}, ValueError, "expected a function of time alone for Additive noise, got one of y"),
        ({"method": Milstein(), "g": lambda t, y: y.roll(1)}, ValueError, "each element of g to depend"),
        ({"method": Milstein(), "g": _rotation, "noise": _COMMUTATIVE}, ValueError, "where the processes commute"),
        ({"path": BrownianPath(0.25), "seed": 3}, ValueError, "path=...)`: expected None beside seed"),
        ({"path": 3}, TypeError, "path=...)`: expected a BrownianPath or None, got 3"),
        ({"batch_shape": 2}, TypeError, "batch_shape=...)`: expected a tuple of whole numbers, got 2"),
        ({"args": 1.0}, TypeError, "args=...)`: expected a tuple of further arguments, got float"),
        ({"loop": "native"}, TypeError, "loop=...)`: expected a loop object such as bdtorch.Native(), got 'native'"),
        ({"linear": lambda t, y: y[:2]}, ValueError, "linear=...)`: expected a shape that broadcasts to (3,)"),
        # At 0 nothing shows it: the check looks beside the initial state.
        ({"y0": 0.0 * _Y0, "g": lambda t, y: y * y.flip(0), "method": Milstein()}, ValueError, "its own element of y"),
        ({"path": BrownianPath(0.75)}, ValueError, "step of the path, 0.75, divided by a power of 2, got 0.25"),
        ({"path": BrownianPath(0.125)}, ValueError, "the step of the path, 0.125, divided by a power of 2"),
        ({"path": BrownianPath(0.25, start=0.1)}, ValueError, "a multiple of dt=0.25 after the start of the path, 0.1"),
        ({"rtol": 0.0, "method": Milstein()}, ValueError, "rtol=...)`: expected a finite number above 0, got 0.0"),
        ({"rtol": 0.1, "atol": -1.0, "method": Milstein()}, ValueError, "atol=...)`: expected a finite number above 0"),
        ({"rtol": 0.1}, ValueError, "expected None for EulerMaruyama with Diagonal noise"),
        ({"rtol": 0.1, "method": Milstein(), "loop": bt.Native()}, ValueError, "loop=...)`: expected None with rtol"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        _solve(**changed)


def test_a_solution_that_becomes_infinite_is_reported_with_time_and_component() -> None:
    with pytest.raises(FloatingPointError, match=r"became inf; .* at t = 1 in component 2"):
        _solve(f=lambda t, y: torch.where(torch.arange(3) == 2, y * 1e155 * (t >= 0.5), -y), dt=0.25)


def test_structure_is_not_asked_for_where_the_method_needs_none() -> None:
    assert _solve(g=lambda t, y: y.roll(1)).isfinite().all()
    assert _solve(g=_rotation, noise=General(processes=2)).isfinite().all()


def test_defaults_follow_the_calculus() -> None:
    torch.testing.assert_close(_solve(), _solve(method=EulerMaruyama(), noise=Diagonal()), rtol=0.0, atol=0.0)
    stratonovich = {"calculus": Calculus.STRATONOVICH, "noise": Scalar()}
    torch.testing.assert_close(
        _solve(**stratonovich), _solve(method=StochasticHeun(), **stratonovich), rtol=0.0, atol=0.0
    )


def test_methods_compare_by_value() -> None:
    assert SRI1() == SRI1() and hash(SRI1()) == hash(SRI1()) and Milstein() == Milstein() and SRI1() != SRA1()


def test_a_bar_is_shown_where_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    _solve(progress=True)
    assert "sdeint" in capsys.readouterr().err
    _solve(progress=False)
    assert capsys.readouterr().err == ""
