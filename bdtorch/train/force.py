"""FORCE learning: a network whose readout learns while it feeds back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import Initialiser, State
from bdtorch.connect import Connectivity, Rule, Weights
from bdtorch.init import Normal, Uniform
from bdtorch.ops.random import fold
from bdtorch.train._checks import above_zero, whole
from bdtorch.train.online import RLS, OnlineReadout, OnlineRule


class _Driven(DynamicalSystem):
    """What both schemes share: a cell with drawn weights, inputs, and an online readout of its rates."""

    extra = 0
    """What the readout learns besides the outputs: this many targets per cell."""

    def __init__(
        self,
        cell: DynamicalSystem,
        n_out: int = 1,
        *,
        n_in: int = 0,
        gain: float = 1.5,
        connect: Rule | Connectivity | None = None,
        w_feedback: Tensor | Initialiser | None = None,
        w_in: Tensor | Initialiser | None = None,
        rule: OnlineRule | None = None,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        label = type(self).__name__
        if not isinstance(cell, DynamicalSystem) or len(cell.size) != 1:
            raise TypeError(f"`{label}(cell=...)`: expected a population with one axis, got {cell!r}")
        super().__init__(whole(n_out, f"{label}(n_out=...)"), dtype=cell.dtype, device=cell.device)
        rule = RLS() if rule is None else rule
        if not isinstance(rule, OnlineRule):
            raise TypeError(f"`{label}(rule=...)`: expected a rule such as bdtorch.train.RLS(), got {rule!r}")
        gain = above_zero(gain, f"{label}(gain=...)")
        self.cell, self.n_in = cell, whole(n_in, f"{label}(n_in=...)", least=0)
        self.every = whole(every, f"{label}(every=...)")
        self.recurrent = self._weights(cell.count, None, "recurrent", seed, connect=connect)
        self.recurrent.weight *= gain
        self.feedback = self._weights(n_out, Uniform(-1.0, 1.0) if w_feedback is None else w_feedback, "feedback", seed)
        if n_in:
            self.input = self._weights(n_in, Normal(0.0, 1.0) if w_in is None else w_in, "input", seed)
        learnt = n_out + self.extra * cell.count
        self.readout = OnlineReadout(cell.count, learnt, rule, dtype=self.dtype, device=self.device)

    def _weights(
        self, n_pre: int, weight: Tensor | Initialiser | None, name: str, seed: int, **options: Any
    ) -> Weights:
        label = f"{type(self).__name__}.{name}"
        options |= {"trained": False, "dtype": self.dtype, "device": self.device}
        return Weights(n_pre, self.cell.count, weight=weight, label=label, seed=fold(seed, name), **options)

    def _read(self, inputs: Any) -> tuple[Tensor | None, Tensor | None]:
        """The input and the target of a step."""
        inputs = {} if inputs is None else inputs
        if not isinstance(inputs, Mapping):
            raise ValueError(f"`inputs`: expected a dict of 'input' and 'target', got {type(inputs).__name__}")
        unknown = set(inputs) - {"input", "target"}
        if unknown:
            raise ValueError(f"`inputs`: expected 'input' and 'target', got {sorted(unknown)}")
        if (inputs.get("input") is None) != (self.n_in == 0):
            raise ValueError(f"`inputs['input']`: expected {self.n_in or 'no'} inputs, got {inputs.get('input')!r}")
        u, target = inputs.get("input"), inputs.get("target")
        if u is not None and (not u.dim() or u.shape[-1] != self.n_in):
            raise ValueError(f"`inputs['input']`: expected (*batch, n_in={self.n_in}), got {tuple(u.shape)}")
        if target is not None and (not target.dim() or target.shape[-1] != self.count):
            raise ValueError(f"`inputs['target']`: expected (*batch, n_out={self.count}), got {tuple(target.shape)}")
        return u, target

    def _due(self, t: Tensor, dt: float) -> Tensor | None:
        """Whether this step learns."""
        if self.every == 1:
            return None
        return torch.remainder(torch.round(t / dt), self.every) == 0


class Force(_Driven):
    r"""A chaotic network that learns to produce a target, by feeding its own readout back while recursive least squares
    keeps the error small from the start.

    $$I = J r + W^{fb} y + W^{in} u, \qquad y = W^\top r, \qquad W \text{ learns from } y - f$$

    Inputs of a step are a dict: ``"target"``, $f$, ``(*batch, n_out)``, where the network is to learn (left out, the
    weights rest and it runs on its own), and ``"input"``, $u$, ``(*batch, n_in)``, where it has inputs. The output is
    $y$ before the step has learnt. Learnt weights are state: pass ``state=sol.state`` to go on.

    Args:
        cell: The population, such as `bdtorch.rates.LeakyRate`.
        n_out: Number of outputs.
        n_in: Number of inputs.
        gain: $g$: recurrent weights are Gaussian with variance $g^2$ / (mean in-degree); chaos above 1.
        connect: Recurrent connectivity; default all to all.
        w_feedback: $W^{fb}$, ``(n_out, size)``: tensor or initialiser; default uniform in [-1, 1).
        w_in: $W^{in}$, ``(n_in, size)``: tensor or initialiser; default standard Gaussian.
        rule: How the readout learns; default `RLS` with ``alpha=1``.
        every: Learn in every so many steps.
        seed: Names the drawn weights.

    Raises:
        TypeError, ValueError: An argument is not as described.

    Source: Sussillo & Abbott (2009), doi:10.1016/j.neuron.2009.07.018.
    """

    class State(NamedTuple):
        cell: Any
        rate: Tensor
        """The cell's last output, ``(*batch, size)``."""
        y: Tensor
        """The last output, which is fed back."""
        readout: Any

    def init_state(self, batch_shape: tuple[int, ...] = (), *, dt: float | None = None, seed: int = 0) -> State:
        cell = initial_state(self.cell, batch_shape, dt=dt, seed=seed)
        return self.State(
            cell, self.cell.init_out(batch_shape), self.fill(batch_shape, 0.0), self.readout.init_state(batch_shape)
        )

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        u, target = self._read(inputs)
        current = self.recurrent(state.rate) + self.feedback(state.y)
        if u is not None:
            current = current + self.input(u)
        cell, rate = self.cell(state.cell, Drive(current=current), t, dt)
        y = self.readout.predict(state.readout, rate)
        readout = state.readout
        if target is not None:
            readout = self.readout.learn(readout, rate, y - target, self._due(t, dt))
        return self.State(cell=cell, rate=rate, y=y, readout=readout), y


class FullForce(_Driven):
    r"""Full-FORCE: a network learns all its recurrent weights from the currents in a second one, which is driven by the
    target.

    $$\text{teacher: } I^D = J^D r^D + W^{fb} f + W^{in} u, \qquad \text{learner: } I = J r + W^{in} u$$

    The learner's $J$ (from zero) learns $J r \approx J^D r^D + W^{fb} f$ and its readout $W^\top r \approx f$, by one
    recursive least squares. Inputs, output and state are as in `Force`.

    Args:
        cell: The population of both networks.
        n_out: Number of outputs.
        n_in: Number of inputs.
        gain: $g$ of the teacher's $J^D$.
        connect: The teacher's connectivity; default all to all.
        w_feedback: As in `Force`.
        w_in: As in `Force`.
        rule: How currents and readout are learnt; default `RLS` with ``alpha=1``.
        every: Learn in every so many steps.
        seed: Names the drawn weights.

    Raises:
        TypeError, ValueError: An argument is not as described.

    Source: DePasquale, Cueva, Rajan, Escola & Abbott (2018), doi:10.1371/journal.pone.0191527.
    """

    extra = 1

    class State(NamedTuple):
        cell: Any
        rate: Tensor
        """The learner's last output, ``(*batch, size)``."""
        teacher: Any
        teacher_rate: Tensor
        readout: Any

    def init_state(self, batch_shape: tuple[int, ...] = (), *, dt: float | None = None, seed: int = 0) -> State:
        cell = initial_state(self.cell, batch_shape, dt=dt, seed=seed)
        teacher = initial_state(self.cell, batch_shape, dt=dt, seed=fold(seed, "teacher"))
        silence = self.cell.init_out(batch_shape)
        return self.State(cell, silence, teacher, silence.clone(), self.readout.init_state(batch_shape))

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        u, target = self._read(inputs)
        external = None if u is None else self.input(u)
        learnt = self.readout.predict(state.readout, state.rate)
        readout, teacher, teacher_rate = state.readout, state.teacher, state.teacher_rate
        if target is not None:
            wanted = self.recurrent(teacher_rate) + self.feedback(target.expand_as(learnt[..., self.cell.count :]))
            error = learnt - torch.cat([wanted, target.expand(*wanted.shape[:-1], self.count)], -1)
            readout = self.readout.learn(readout, state.rate, error, self._due(t, dt))
            teacher, teacher_rate = self.cell(teacher, Drive(current=_sum(wanted, external)), t, dt)
        current = _sum(learnt[..., : self.cell.count], external)
        cell, rate = self.cell(state.cell, Drive(current=current), t, dt)
        return self.State(cell, rate, teacher, teacher_rate, readout), learnt[..., self.cell.count :]


def _sum(current: Tensor, external: Tensor | None) -> Tensor:
    return current if external is None else current + external
