"""Lyapunov exponents from the tangent dynamics of a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem
from bdtorch.analyze._rows import RowMap
from bdtorch.integrate import RK4, Integrator
from bdtorch.simulate import Loop, simulate, trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_UNROLLED = 32
"""Vectors that are made orthonormal one by one, which compiles; more of them by LAPACK in the reference loop."""


@dataclass(frozen=True)
class LyapunovSpectrum:
    """Lyapunov exponents, largest first."""

    exponents: Tensor
    """Per ms, or per step of a map, ``(*batch, k)``."""
    times: Tensor
    """Time, or number of steps, after the transient at which the history was taken, ``(rows,)``."""
    history: Tensor
    """Estimates up to these times, ``(rows, *batch, k)``."""
    x: Tensor
    """The state at the end, ``(*batch, n)``."""
    discrete: bool
    """Whether the system is a map."""

    @property
    def count(self) -> int:
        """How many exponents there are."""
        return self.exponents.shape[-1]

    @property
    def drift(self) -> Tensor:
        """By how much each estimate has still changed over the last half of the time, ``(*batch, k)``."""
        late = self.history[self.times >= 0.5 * self.times[-1]]
        return late.amax(0) - late.amin(0)

    @property
    def kaplan_yorke_dimension(self) -> Tensor:
        """The dimension up to which volumes grow, ``(*batch,)``; NaN where more exponents than are known decide it.

        Source: Kaplan & Yorke (1979), doi:10.1007/BFb0064319.
        """
        n = self.x.shape[-1]
        sums = self.exponents.cumsum(-1)
        growing = (sums >= 0).long().cumprod(-1).sum(-1)  # the first so many sum to something that is not negative
        padded = torch.nn.functional.pad(sums, (1, 0))
        before = padded.gather(-1, growing.unsqueeze(-1)).squeeze(-1)
        following = self.exponents.gather(-1, growing.clamp_max(self.count - 1).unsqueeze(-1)).squeeze(-1)
        inside = growing + before / following.abs()
        beyond = torch.full_like(inside, float(n) if self.count == n else math.nan)
        return torch.where(growing < self.count, inside, beyond)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the history of the estimates (their mean over a batch) into ``ax`` (default: a new figure)."""
        from bdtorch.analyze._draw_points import draw_exponents

        return draw_exponents(self, ax)


def lyapunov_spectrum(
    system: Any,
    start: Any,
    *,
    duration: float,
    transient: float,
    dt: float | None = None,
    k: int | None = None,
    inputs: Any = None,
    discrete: bool = False,
    integrator: Integrator | None = None,
    every: int = 1,
    loop: str | Loop = "auto",
) -> LyapunovSpectrum:
    r"""The first exponents of a trajectory: how fast nearby ones part, direction by direction.

    Tangent vectors are carried along by the derivative of the step (forward-mode differentiation) and made orthonormal
    by Gram-Schmidt; the mean logarithms of the lengths that are lost are the exponents. The whole runs as one system in
    the time loop. Of a flow they are those of its integrator's map, divided by ``dt``.

    Args:
        system: A `bdtorch.Flow`, another `bdtorch.DynamicalSystem`, or a function ``(*batch, n)`` to ``(*batch, n)``: a
            derivative, or with ``discrete`` a map. Its step must be smooth: resets of spikes are not seen.
        start: ``(n,)``, or ``(batch, n)`` for several trajectories at once; or the system's state likewise.
        duration: Time to average over, ms; of a map of a function, the number of steps.
        transient: Time to run before, in which the state reaches the attractor and the vectors turn into place.
        dt: Step, ms. Of a function that is a map, none.
        k: How many exponents; default all.
        inputs: The constant input.
        discrete: Whether a function is a map, or exponents of a system are per step instead of per ms.
        integrator: Of a function that is a derivative; default `bdtorch.integrate.RK4`.
        every: Steps between orthonormalisations; more than 1 take longer to compile.
        loop: Time loop, as in `bdtorch.simulate`; "auto" means the reference loop for more than 32 exponents.

    Raises:
        TypeError, ValueError: An argument is not as described, or the system is not a differentiable, autonomous function
            of its state alone.
        FloatingPointError: The trajectory diverged, or an exponent is minus infinity.

    Source: Benettin, Galgani, Giorgilli & Strelcyn (1980), doi:10.1007/BF02128236.
    """
    step = 1.0 if dt is None else dt
    rows = _stepped(system, inputs, dt, discrete, integrator)
    single = _is_single(start, rows)
    x = rows.rows(_with_axis(start) if single else start, "start")
    rows.check(x)
    n = x.shape[1]
    count = n if k is None else k
    for name, value, most in (("k", count, n), ("every", every, math.inf)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError(f"`lyapunov_spectrum({name}=...)`: expected a whole number in [1, {most}], got {value!r}")
    rounds = {
        name: _rounds(name, value, step * every) for name, value in (("duration", duration), ("transient", transient))
    }
    tangent = _Tangent(rows, x, count, every)
    state = tangent.init_state()
    if loop == "auto" and count > _MOST_UNROLLED:
        loop = "reference"
    options: dict[str, Any] = {"dt": step * every, "progress": False, "loop": loop, "inputs": None}
    gap = max(1, rounds["duration"] // 200)
    try:
        if rounds["transient"]:
            settled = (
                simulate(tangent, duration=rounds["transient"] * step * every, state=state, **options).whole().state
            )
            state = state._replace(x=settled.x, vectors=settled.vectors)
        sol = simulate(
            tangent,
            duration=rounds["duration"] * step * every,
            state=state,
            record={"sums": trace("sums", every=gap)},
            keep_out=False,
            **options,
        ).whole()
    except FloatingPointError as error:
        if "'vectors'" not in str(error):
            raise
        raise FloatingPointError(
            "`lyapunov_spectrum(k=...)`: a direction is contracted to nothing in one step, so that its exponent is minus "
            f"infinity: ask for fewer exponents ({error})"
        ) from error
    per_step = discrete or dt is None
    unit = 1.0 if per_step else step
    # Sums are by batch and vector; times count steps of the map from the end of the transient.
    times = torch.arange(1, len(sol["sums"]) + 1, dtype=torch.float64) * gap * every * unit
    history = sol["sums"] / times.to(x).reshape(-1, 1, 1)
    final = sol.state.sums / (rounds["duration"] * every * unit)
    order = final.sort(dim=-1, descending=True, stable=True)[1]
    history, final = history.gather(-1, order.expand_as(history)), final.gather(-1, order)
    if single:
        history, final = history[:, 0], final[0]
    return LyapunovSpectrum(final, times, history, sol.state.x[0] if single else sol.state.x, per_step)


def _rounds(name: str, value: float, length: float) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"`lyapunov_spectrum({name}=...)`: expected a finite number of at least 0, got {value!r}")
    rounds = round(value / length)
    if abs(rounds * length - value) > 1e-6 * max(length, value) or (name == "duration" and rounds < 1):
        raise ValueError(
            f"`lyapunov_spectrum({name}=...)`: expected a multiple of {length:g}, the time between orthonormalisations, "
            f"got {value!r}"
        )
    return rounds


def _stepped(system: Any, inputs: Any, dt: float | None, discrete: bool, integrator: Integrator | None) -> RowMap:
    """The map of one step."""
    if isinstance(system, DynamicalSystem):
        if integrator is not None:
            raise ValueError("`lyapunov_spectrum(integrator=...)`: a system has its own")
        if dt is None:
            raise ValueError("`lyapunov_spectrum(dt=...)`: expected the step, got None")
        return RowMap(system, "lyapunov_spectrum", inputs=inputs, dt=dt)
    if discrete:
        return RowMap(system, "lyapunov_spectrum", inputs=inputs, dt=dt, discrete=True)
    if dt is None or not 0 < dt < math.inf:
        raise ValueError(f"`lyapunov_spectrum(dt=...)`: expected a finite step above 0, got {dt!r}")
    derivative, method = RowMap(system, "lyapunov_spectrum", inputs=inputs), integrator or RK4()

    def advanced(x: Tensor) -> Tensor:
        start = torch.zeros((), dtype=torch.float64, device=x.device)
        return method.step(lambda y, t: derivative(y), lambda y, t: 0.0, x, start, dt)

    return RowMap(advanced, "lyapunov_spectrum", discrete=True)


def _is_single(start: Any, rows: RowMap) -> bool:
    if isinstance(start, Tensor):
        return start.dim() == 1
    leaves = tree.leaves(start)
    return rows.spec is not None and bool(leaves) and tuple(leaves[0].shape) == rows.shapes[0]


def _with_axis(start: Any) -> Any:
    return tree.map(lambda leaf: leaf.unsqueeze(0), start)


class _Tangent(DynamicalSystem):
    """Trajectories with tangent vectors: a step is several of the map's, then the vectors are made orthonormal."""

    class State(NamedTuple):
        x: Tensor
        """``(batch, n)``."""
        vectors: Tensor
        """Orthonormal, ``(k, batch, n)``."""
        sums: Tensor
        """Of the logarithms of their lengths, ``(batch, k)``."""

    def __init__(self, rows: RowMap, x: Tensor, count: int, every: int) -> None:
        super().__init__(x.shape[1], dtype=x.dtype, device=x.device)
        if isinstance(rows.system, torch.nn.Module):
            self.system = rows.system
        self.rows, self.start, self.vectors, self.every = rows, x, count, every

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        batch, n = self.start.shape
        # Any vectors will do, but for those that a direction of growth takes long to reach, such as single units.
        drawn = torch.randn(n, self.vectors, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        spread = torch.linalg.qr(drawn)[0].T.to(self.start)
        vectors = spread[:, None].expand(-1, batch, -1).clone()
        return self.State(self.start.clone(), vectors, self.start.new_zeros(batch, self.vectors))

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        x, vectors = state.x, state.vectors
        for _ in range(self.every):
            x, vectors = _pushed(self.rows, x, vectors)
        vectors, lengths = _orthonormal(vectors)
        return self.State(x, vectors, state.sums + lengths.log()), x


def _pushed(rows: RowMap, x: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The map of ``x``, ``(batch, n)``, and its derivative of the tangent vectors, ``(k, batch, n)``."""
    moved, pushed = torch.func.jvp(  # type: ignore[misc]
        rows, (x.expand_as(vectors).clone(),), (vectors,)
    )
    return moved[0], pushed


def _orthonormal(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal vectors that span the same flag of spaces, and the lengths that each lost, ``(batch, k)``."""
    if len(vectors) > _MOST_UNROLLED:
        q, r = torch.linalg.qr(vectors.permute(1, 2, 0))
        return q.permute(2, 0, 1), r.diagonal(dim1=-2, dim2=-1).abs()
    done: list[Tensor] = []
    lengths: list[Tensor] = []
    for vector in vectors.unbind(0):
        for _ in range(2 if done else 0):  # Gram-Schmidt, twice is enough
            before = torch.stack(done)
            vector = vector - ((before * vector).sum(-1, keepdim=True) * before).sum(0)
        length = vector.square().sum(-1, keepdim=True).sqrt()
        done.append(vector / length)
        lengths.append(length)
    return torch.stack(done), torch.cat(lengths, -1)
