"""Brian2, as a C++ standalone program: the code that it generates and compiles by default, in single precision.

Its documentation's examples are the pattern of all four models. Conductances and potentials are plain numbers in nS and
mV (or units of the leak), so that the constants are those of the other simulators.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import brian2 as b2
import numpy as np

from benchmarks import wiring
from benchmarks.simulators import DT, Case, Run, Simulator
from benchmarks.wiring import PlasticWiring, Wiring


class Contestant(Simulator):
    """A program; a run's seconds are those that it reports for its time loop, without setting up the synapses."""

    def __init__(self, case: Case) -> None:
        self.case = case
        loaded = wiring.load(case.wiring)
        self.synapses = loaded.synapses
        self.compile_s = _compile(case, loaded)

    def run(self) -> Run:
        folder = self.case.folder
        subprocess.run([str(folder / "main")], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        results = folder / "results"
        seconds = float((results / "last_run_info.txt").read_text().split()[0])
        (count,) = results.glob("_array_recorded_N_*")
        status = dict(line.split(":", 1) for line in (results / "status.txt").read_text().splitlines())
        spikes = int(np.fromfile(count, np.int32)[0])
        return Run(seconds, self.compile_s, spikes, int(status["VmHWM"].split()[0]) / 1024)


def _compile(case: Case, loaded: Wiring | PlasticWiring) -> float:
    """Write and compile the program, and say how long that took; its binary is ``main`` in the folder of the case."""
    began = time.perf_counter()
    b2.set_device("cpp_standalone", build_on_run=False)
    b2.prefs.core.default_float_dtype = np.float32
    b2.prefs.devices.cpp_standalone.openmp_threads = case.threads if case.threads > 1 else 0
    b2.defaultclock.dt = DT * b2.ms
    parts = MODELS[case.stem](loaded, case.simulator == "brian2-synaptic")
    b2.Network(*parts, b2.SpikeMonitor(parts[0], name="recorded")).run(case.duration * b2.ms)
    # /proc of the program itself: the peak that its parent would be told includes the parent's own memory.
    b2.device.insert_code(
        "after_end", 'std::ofstream("results/status.txt") << std::ifstream("/proc/self/status").rdbuf();'
    )
    b2.device.build(directory=str(case.folder), compile=True, run=False)
    return time.perf_counter() - began


def _started(cells: b2.NeuronGroup, names: str, state: np.ndarray) -> b2.NeuronGroup:
    """The cells at their initial values."""
    for name, values in zip(names.split(), state, strict=True):
        setattr(cells, name, values)
    return cells


def _pathways(
    cells: b2.NeuronGroup, wires: Wiring, excites: str, inhibits: str, **options: object
) -> list[b2.Synapses]:
    """The synapses, with what a spike does at those of either kind."""
    source = np.repeat(np.arange(wires.neurons), np.diff(wires.indptr))
    border = wires.indptr[wires.excitatory]
    pathways = []
    for on_pre, part in ((excites, slice(None, border)), (inhibits, slice(border, None))):
        pathway = b2.Synapses(cells, cells, on_pre=on_pre, **options)
        pathway.connect(i=source[part], j=wires.indices[part])
        pathways.append(pathway)
    return pathways


def coba(wires: Wiring, _: bool) -> list:
    """Network A. Brian2 integrates the conductances with the method of the potential, Euler."""
    cells = b2.NeuronGroup(
        wires.neurons,
        """dv/dt = (-60 - v + g_e * (0 - v) + g_i * (-80 - v) + 20) / (20*ms) : 1 (unless refractory)
           dg_e/dt = -g_e / (5*ms) : 1
           dg_i/dt = -g_i / (10*ms) : 1""",
        threshold="v > -50",
        reset="v = -60",
        refractory=5 * b2.ms,
        method="euler",
    )
    return [_started(cells, "v g_e g_i", wires.state), *_pathways(cells, wires, "g_e += 0.6", "g_i += 6.7")]


def cobahh(wires: Wiring, _: bool) -> list:
    """Network B."""
    cells = b2.NeuronGroup(
        wires.neurons,
        """dv/dt = (10 * (-60 - v) + 20000 * m**3 * h * (50 - v) + 6000 * n**4 * (-90 - v)
                    + g_e * (0 - v) + g_i * (-80 - v)) / (200*ms) : 1
           dm/dt = alpha_m * (1 - m) - beta_m * m : 1
           dh/dt = alpha_h * (1 - h) - beta_h * h : 1
           dn/dt = alpha_n * (1 - n) - beta_n * n : 1
           dg_e/dt = -g_e / (5*ms) : 1
           dg_i/dt = -g_i / (10*ms) : 1
           x = v + 63 : 1
           alpha_m = 0.32 * 4 / exprel((13 - x) / 4) / ms : Hz
           beta_m = 0.28 * 5 / exprel((x - 40) / 5) / ms : Hz
           alpha_h = 0.128 * exp((17 - x) / 18) / ms : Hz
           beta_h = 4 / (1 + exp((40 - x) / 5)) / ms : Hz
           alpha_n = 0.032 * 5 / exprel((15 - x) / 5) / ms : Hz
           beta_n = 0.5 * exp((10 - x) / 40) / ms : Hz""",
        threshold="v > -20",
        refractory=3 * b2.ms,
        method="exponential_euler",
    )
    return [_started(cells, "v m h n g_e g_i", wires.state), *_pathways(cells, wires, "g_e += 6", "g_i += 67")]


def brunel(wires: Wiring, _: bool) -> list:
    """Network C."""
    cells = b2.NeuronGroup(
        wires.neurons,
        "dv/dt = (30 - v) / (20*ms) : 1 (unless refractory)",
        threshold="v > 20",
        reset="v = 10",
        refractory=2 * b2.ms,
        method="exact",
    )
    return [_started(cells, "v", wires.state), *_pathways(cells, wires, "v += 0.2", "v -= 1.2", delay=1.5 * b2.ms)]


def stdp(wires: PlasticWiring, synaptic: bool) -> list:
    """Network D, with traces per neuron or, as is customary in Brian2, per synapse and brought up to date by events.

    The trace of an input needs a neuron; it passes the spike on a step later.
    """
    cells = b2.NeuronGroup(
        wires.neurons,
        """dv/dt = (-74 - v - g * v) / (10*ms) : 1
           dg/dt = -g / (5*ms) : 1"""
        + ("" if synaptic else "\ndy/dt = -y / (20*ms) : 1"),
        threshold="v > -54",
        reset="v = -60" if synaptic else "v = -60; y += 1.05e-4",
        method="exponential_euler",
    )
    times = wires.input_step * DT * b2.ms
    spikes = b2.SpikeGeneratorGroup(wires.inputs, wires.input_index, times)
    if synaptic:
        plastic = b2.Synapses(
            spikes,
            cells,
            """w : 1
               dx/dt = -x / (20*ms) : 1 (event-driven)
               dy/dt = -y / (20*ms) : 1 (event-driven)""",
            on_pre="g_post += w; x += 1e-4; w = clip(w - y, 0, 0.01)",
            on_post="y += 1.05e-4; w = clip(w + x, 0, 0.01)",
        )
        parts = [cells, spikes, plastic]
    else:
        traces = b2.NeuronGroup(
            wires.inputs,
            """dx/dt = -x / (20*ms) : 1
               due : 1""",
            threshold="due > 0",
            reset="due = 0",
            method="euler",
        )
        relay = b2.Synapses(spikes, traces, on_pre="due_post = 1")
        relay.connect(j="i")
        plastic = b2.Synapses(
            traces,
            cells,
            "w : 1",
            on_pre="g_post += w; w = clip(w - y_post, 0, 0.01)",
            on_post="w = clip(w + x_pre, 0, 0.01)",
        )
        raised = b2.Synapses(traces, traces, on_pre="x_post += 1e-4")
        raised.connect(j="i")
        raised.pre.order = 0  # after the inputs' spikes have acted, before the neurons' do
        parts = [cells, spikes, traces, relay, raised, plastic]
    plastic.connect()
    plastic.w = wires.weights.ravel()
    _started(cells, "v g", wires.state)
    return parts


MODELS: dict[str, Callable[..., list]] = {"coba": coba, "cobahh": cobahh, "brunel": brunel, "stdp": stdp}
