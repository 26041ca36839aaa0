"""BrainPy: variables, integrators and event-driven products of its own, the whole time loop compiled by ``bm.for_loop``.

Models are written out as its users write neurons of their own, with nothing that its library classes would do besides.
They count spikes instead of recording them, which costs BrainPy less. It compiles within the first run.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable
from typing import Any

import brainevent
import brainpy as bp
import brainpy.math as bm
import jax.numpy as jnp
import numpy as np

from benchmarks import wiring
from benchmarks.simulators import DT, Case, Run, Simulator
from benchmarks.wiring import PlasticWiring, Wiring


class Contestant(Simulator):
    """A model and its compiled loop."""

    def __init__(self, case: Case) -> None:
        bm.set_dt(DT)
        loaded = wiring.load(case.wiring)
        self.synapses = loaded.synapses
        self.model = MODELS[case.stem](loaded, case.steps)
        self.operands = self.model.operands(case.steps)
        self.loop = bm.jit(lambda operands: bm.for_loop(self.model.update, operands, progress_bar=False))

    def run(self) -> Run:
        began = time.perf_counter()
        self.model.reset()
        self.loop(self.operands)
        spikes = int(np.asarray(self.model.count.value).sum(dtype=np.int64))  # waits for the result
        return Run(time.perf_counter() - began, 0.0, spikes)


class Model(bp.DynamicalSystem, abc.ABC):
    """A network; ``initial`` names its variables and their values at the start."""

    refractory: int = 0

    def __init__(self, wires: Wiring | PlasticWiring, names: str, **others: Any) -> None:
        super().__init__()
        neurons = wires.neurons
        self.initial = dict(zip(names.split(), map(jnp.asarray, wires.state), strict=True)) | others
        self.initial |= {"countdown": jnp.zeros(neurons, int), "count": jnp.zeros(neurons, int)}
        for name, value in self.initial.items():
            setattr(self, name, bm.Variable(value))

    def reset(self) -> None:
        """Return to the initial values."""
        for name, value in self.initial.items():
            getattr(self, name).value = value

    def operands(self, steps: int) -> Any:
        """What each step is handed."""
        return jnp.arange(steps)

    def fire(self, above: Any) -> Any:
        """Who spikes: those above threshold who are free, who are counted and blocked for the refractory period."""
        free = self.countdown.value <= 0
        spikes = free & above
        self.countdown.value = jnp.where(spikes, self.refractory, jnp.where(free, 0, self.countdown.value - 1))
        self.count.value += spikes
        return spikes

    @abc.abstractmethod
    def update(self, operand: Any) -> None:
        """One step."""


class Recurrent(Model):
    """Two pathways with a weight each."""

    def __init__(self, wires: Wiring, names: str, excitation: float, inhibition: float, **others: Any) -> None:
        super().__init__(wires, names, **others)
        self.excitatory = wires.excitatory
        self.excites, self.inhibits = (
            self._pathway(weight, *wires.pathway(excites), wires.neurons)
            for weight, excites in ((excitation, True), (inhibition, False))
        )

    @staticmethod
    def _pathway(weight: float, indptr: np.ndarray, indices: np.ndarray, neurons: int) -> Callable[[Any], Any]:
        shape = (len(indptr) - 1, neurons)
        pointers, targets = jnp.asarray(indptr, jnp.int32), jnp.asarray(indices)
        return lambda spikes: bm.event.csrmv(weight, targets, pointers, spikes, shape=shape, transpose=True)

    def deliver(self, spikes: Any) -> tuple[Any, Any]:
        """What excitatory and inhibitory spikes bring to each neuron."""
        return self.excites(spikes[: self.excitatory]), self.inhibits(spikes[self.excitatory :])


class Coba(Recurrent):
    """Network A."""

    refractory = 50

    def __init__(self, wires: Wiring, _: int) -> None:
        super().__init__(wires, "v g_e g_i", excitation=0.6, inhibition=6.7)
        self.integral = bp.odeint(self.slope, method="euler")

    @staticmethod
    def slope(v, t, g_e, g_i):
        return (-60.0 - v + g_e * (0.0 - v) + g_i * (-80.0 - v) + 20.0) / 20.0

    def update(self, operand: Any) -> None:
        free = self.countdown.value <= 0
        moved = self.integral(self.v.value, 0.0, self.g_e.value, self.g_i.value, dt=DT)
        v = jnp.where(free, moved, self.v.value)
        spikes = self.fire(v >= -50.0)
        self.v.value = jnp.where(spikes, -60.0, v)
        excitation, inhibition = self.deliver(spikes)
        self.g_e.value = self.g_e.value * np.exp(-DT / 5.0) + excitation
        self.g_i.value = self.g_i.value * np.exp(-DT / 10.0) + inhibition


class Cobahh(Recurrent):
    """Network B."""

    refractory = 30

    def __init__(self, wires: Wiring, _: int) -> None:
        super().__init__(wires, "v m h n g_e g_i", excitation=6.0, inhibition=67.0)
        equations = bp.JointEq(self.slope_v, self.slope_m, self.slope_h, self.slope_n)
        self.integral = bp.odeint(equations, method="exp_auto")

    @staticmethod
    def slope_v(v, t, m, h, n, g_e, g_i):
        sodium, potassium = 20000.0 * m**3 * h * (50.0 - v), 6000.0 * n**4 * (-90.0 - v)
        return (10.0 * (-60.0 - v) + sodium + potassium + g_e * (0.0 - v) + g_i * (-80.0 - v)) / 200.0

    @staticmethod
    def slope_m(m, t, v):
        x = v + 63.0
        return 0.32 * 4.0 / bm.exprel((13.0 - x) / 4.0) * (1.0 - m) - 0.28 * 5.0 / bm.exprel((x - 40.0) / 5.0) * m

    @staticmethod
    def slope_h(h, t, v):
        x = v + 63.0
        return 0.128 * jnp.exp((17.0 - x) / 18.0) * (1.0 - h) - 4.0 / (1.0 + jnp.exp((40.0 - x) / 5.0)) * h

    @staticmethod
    def slope_n(n, t, v):
        x = v + 63.0
        return 0.032 * 5.0 / bm.exprel((15.0 - x) / 5.0) * (1.0 - n) - 0.5 * jnp.exp((10.0 - x) / 40.0) * n

    def update(self, operand: Any) -> None:
        v, m, h, n = self.integral(
            self.v.value, self.m.value, self.h.value, self.n.value, 0.0, self.g_e.value, self.g_i.value, dt=DT
        )
        spikes = self.fire((self.v.value < -20.0) & (v >= -20.0))
        self.v.value, self.m.value, self.h.value, self.n.value = v, m, h, n
        excitation, inhibition = self.deliver(spikes)
        self.g_e.value = self.g_e.value * np.exp(-DT / 5.0) + excitation
        self.g_i.value = self.g_i.value * np.exp(-DT / 10.0) + inhibition


class Brunel(Recurrent):
    """Network C."""

    refractory = 20
    slots = 16  # of a spike's way: the step that it takes without a delay, and the 15 of the delay

    def __init__(self, wires: Wiring, _: int) -> None:
        ring = jnp.zeros((self.slots, wires.neurons), bool)
        super().__init__(wires, "v", excitation=0.2, inhibition=-1.2, ring=ring)
        self.integral = bp.odeint(self.slope, method="exp_auto")

    @staticmethod
    def slope(v, t):
        return (30.0 - v) / 20.0

    def update(self, operand: Any) -> None:
        slot = operand % self.slots
        excitation, inhibition = self.deliver(self.ring.value[slot])
        free = self.countdown.value <= 0
        v = jnp.where(free, self.integral(self.v.value + excitation + inhibition, 0.0, dt=DT), self.v.value)
        spikes = self.fire(v >= 20.0)
        self.v.value = jnp.where(spikes, 10.0, v)
        self.ring.value = self.ring.value.at[slot].set(spikes)


class Stdp(Model):
    """Network D, with brainevent's updates of dense weights, which BrainPy's own layers use."""

    def __init__(self, wires: PlasticWiring, steps: int) -> None:
        x, y = jnp.zeros(wires.inputs), jnp.zeros(wires.neurons)
        super().__init__(wires, "v g", w=jnp.asarray(wires.weights), x=x, y=y)
        self.integral = bp.odeint(self.slope, method="exp_auto")
        trains = np.zeros((steps, wires.inputs), bool)
        due = wires.input_step < steps
        trains[wires.input_step[due], wires.input_index[due]] = True
        self.trains = trains

    @staticmethod
    def slope(v, t, g):
        return (-74.0 - v - g * v) / 10.0

    def operands(self, steps: int) -> Any:
        return jnp.asarray(self.trains)

    def update(self, operand: Any) -> None:
        v = self.integral(self.v.value, 0.0, self.g.value, dt=DT)
        spikes = self.fire(v >= -54.0)
        self.v.value = jnp.where(spikes, -60.0, v)
        x, y = self.x.value * np.exp(-DT / 20.0), self.y.value * np.exp(-DT / 20.0)
        arriving = brainevent.binary_densemv(self.w.value, operand, transpose=True)
        self.g.value = self.g.value * np.exp(-DT / 5.0) + arriving
        self.x.value = x + 1e-4 * operand
        weights = brainevent.update_dense_on_binary_pre(self.w.value, operand, -y, 0.0, 0.01)
        self.w.value = brainevent.update_dense_on_binary_post(weights, self.x.value, spikes, 0.0, 0.01)
        self.y.value = y + 1.05e-4 * spikes


MODELS: dict[str, Callable[[Any, int], Model]] = {"coba": Coba, "cobahh": Cobahh, "brunel": Brunel, "stdp": Stdp}
