"""Network A in Brian2, as a C++ standalone program. Runs in an environment of its own, which `networks.py` is told of.

    python3 -m venv .venv-brian2 && .venv-brian2/bin/pip install brian2 "numpy<2" setuptools
    python benchmarks/networks.py --simulators bdtorch,floor,brian2 --brian2-python .venv-brian2/bin/python

It reads the wiring that `networks.py` saves, so both sides have the same synapses and initial values. Brian2 integrates
the conductances with the method of the potential, Euler.
"""

import argparse

import brian2 as b2
import numpy as np


def build(wiring_file: str, folder: str, duration: float, threads: int) -> None:
    """Write and compile the program for ``duration`` ms into ``folder``; its binary is ``folder/main``."""
    b2.set_device("cpp_standalone", build_on_run=False)
    b2.prefs.core.default_float_dtype = np.float32
    b2.prefs.devices.cpp_standalone.openmp_threads = threads if threads > 1 else 0
    b2.defaultclock.dt = 0.1 * b2.ms
    with np.load(wiring_file) as file:
        excitatory, indptr, indices = int(file["excitatory"]), file["indptr"], file["indices"]
        initial = dict(zip(("v", "g_e", "g_i"), file["state"], strict=True))
    neurons = len(indptr) - 1
    cells = b2.NeuronGroup(
        neurons,
        """dv/dt = (-60 - v + g_e * (0 - v) + g_i * (-80 - v) + 20) / (20*ms) : 1 (unless refractory)
           dg_e/dt = -g_e / (5*ms) : 1
           dg_i/dt = -g_i / (10*ms) : 1""",
        threshold="v > -50",
        reset="v = -60",
        refractory=5 * b2.ms,
        method="euler",
    )
    for name, values in initial.items():
        setattr(cells, name, values)
    source = np.repeat(np.arange(neurons), np.diff(indptr))
    excites = source < excitatory
    excitation = b2.Synapses(cells, cells, on_pre="g_e_post += 0.6")
    excitation.connect(i=source[excites], j=indices[excites])
    inhibition = b2.Synapses(cells, cells, on_pre="g_i_post += 6.7")
    inhibition.connect(i=source[~excites], j=indices[~excites])
    spikes = b2.SpikeMonitor(cells, name="recorded")
    network = b2.Network(cells, excitation, inhibition, spikes)
    network.run(duration * b2.ms)
    b2.device.build(directory=folder, compile=True, run=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wiring")
    parser.add_argument("folder")
    parser.add_argument("--duration", type=float, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    build(arguments.wiring, arguments.folder, arguments.duration, arguments.threads)


if __name__ == "__main__":
    main()
