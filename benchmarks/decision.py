"""The decision network of Wang (2002), many trials in one simulation, beside BrainPy, in one run.

    BRAINPY_PYTHON=.venv-brainpy/bin/python python -m benchmarks.decision [--trials 8] [--json FILE]

2,000 integrate-and-fire neurons, all connected with all, through AMPA, saturating NMDA and GABA receptors, for 2 s in
steps of 0.1 ms, single precision: the network of `notebooks/decision_making.py` and of figure 3E of BrainPy's paper.
Coherences of -100, -20, 20 and 100 %, so many trials at each, one `vmap` over all: `torch.func.vmap` around `simulate`,
and `brainstate.transform.vmap` around BrainPy's compiled loop, whose library classes (`LifRef`, `FullProjAlignPostMg`,
`FullProjAlignPreSDMg`, `NMDA`, `MgBlock`, `PoissonGroup`) make the network.

Equal on both sides: neurons, weights, delays, the evidence in every trial, and input as `PoissonGroup` has it, at most
one spike in a step. (Weights of BrainPy are multiplied by exp(dt / tau), for it lets what arrives decay for a step before
it acts.) XLA, which runs BrainPy, takes subnormal numbers for zero, and synaptic variables between the spikes of a neuron
decay to such; so does PyTorch here, and with it the loop of bdtorch, once `torch.set_flush_denormal(True)` asks for it.
Both record how many neurons of each group spike in every step. The trains are random; so means over trials of
the groups' rates are compared, which must agree within 15 % or 1 Hz. One core; each side gets a first call, which
compiles, and one more, which is quoted. BrainPy keeps its compiled loop between them; here each call of `simulate` traces
the step anew, which is counted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides import ran, timed

DT, ON, OFF, END = 0.1, 500.0, 1500.0, 2000.0  # ms
GROUPS = {"A": 240, "B": 240, "N": 1120, "I": 400}
COHERENCES = (-100.0, -20.0, 20.0, 100.0)  # percent
PLUS, MINUS = 1.7, 1.0 - 0.15 * 0.7 / 0.85
PATTERN = {"A": (PLUS, MINUS, 1.0, 1.0), "B": (MINUS, PLUS, 1.0, 1.0), "N": (MINUS, MINUS, 1.0, 1.0)}
BACKGROUND = 2400.0  # Hz
Call = Callable[[], np.ndarray]
"""Spikes of each group in every step, ``(trials, steps, groups)``."""


def evidence(trials: int) -> np.ndarray:
    """Rates of the input to A and to B, Hz, in every step, ``(trials, steps, 2)``, redrawn every 50 ms."""
    coherence = np.repeat(COHERENCES, trials)
    mean = 40.0 * (1.0 + np.stack([coherence, -coherence], -1) / 100.0)
    drawn = np.random.default_rng(0).standard_normal((len(coherence), round((OFF - ON) / 50.0), 2))
    shown = np.repeat(np.maximum(mean[:, None] + 10.0 * drawn, 0.0), round(50.0 / DT), 1)
    return np.pad(shown, ((0, 0), (round(ON / DT), round((END - OFF) / DT)), (0, 0))).astype(np.float32)


def bdtorch_side(rates: np.ndarray) -> Call:
    """The network of the script, with input of at most one spike in a step."""
    import torch

    import bdtorch as bt
    from notebooks import decision_making

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    draw = bt.ops.bernoulli

    class Background(decision_making.Background):
        def step(self, state: Any, inputs: Any, t: Any, dt: float) -> Any:
            selective = 2 * self.sizes[0]
            noise = draw(state.key, state.counter, torch.full((), self.rate * dt * 1e-3), self.count).float()
            shown = (inputs * (dt * 1e-3)).unsqueeze(-1).expand(*inputs.shape, self.sizes[0]).flatten(-2)
            seen = draw(state.key + 1, state.counter, shown, selective).float()
            out = torch.cat([noise[..., :selective] + seen, noise[..., selective:]], -1)
            return self.State(key=state.key, counter=state.counter + 1), out

    decision_making.Background = Background  # type: ignore[misc]
    net = decision_making.network()
    given = torch.from_numpy(rates)

    def counted(_: Any, out: Any) -> Any:
        parts = [*out["E"].split(tuple(GROUPS.values())[:3]), out["I"]]
        return torch.stack([part.sum() for part in parts])

    def trial(shown: Any, number: Any) -> Any:
        return bt.simulate(net, {"P": shown}, dt=DT, seed=number, record={"n": counted}, progress=False)["n"]

    return lambda: torch.func.vmap(trial)(given, torch.arange(len(given))).numpy()


def brainpy_side(rates: np.ndarray) -> Call:
    """Its library classes, as its own examples put them together."""
    import brainpy as bp
    import brainpy.math as bm
    import brainstate
    import jax.numpy as jnp

    bm.set_dt(DT)

    def fast(pre: Any, post: Any, weight: float, tau: float, e: float, delay: float | None, one: bool = False) -> Any:
        weight *= math.exp(DT / tau)  # what arrives decays for a step before it acts; here it acts, then decays
        comm = bp.dnn.OneToOne(pre.num, weight) if one else bp.dnn.AllToAll(pre.num, post.num, weight)
        return bp.dyn.FullProjAlignPostMg(
            pre=pre, delay=delay, comm=comm, syn=bp.dyn.Expon.desc(post.num, tau=tau), out=bp.dyn.COBA.desc(E=e), post=post
        )  # fmt: skip

    def slow(pre: Any, post: Any, weight: float) -> Any:
        synapse = bp.dyn.NMDA.desc(pre.num, a=0.5, tau_decay=100.0, tau_rise=2.0)
        return bp.dyn.FullProjAlignPreSDMg(
            pre=pre, syn=synapse, delay=0.5, comm=bp.dnn.AllToAll(pre.num, post.num, weight),
            out=bp.dyn.MgBlock(E=0.0, cc_Mg=1.0), post=post,
        )  # fmt: skip

    class Network(bp.DynSysGroup):
        def __init__(self) -> None:
            super().__init__()
            self.cells = bm.NodeDict({name: self.cell(n, name == "I") for name, n in GROUPS.items()})
            self.noise = bm.NodeDict({name: bp.dyn.PoissonGroup(n, freqs=BACKGROUND) for name, n in GROUPS.items()})
            self.seen = bm.NodeDict(
                {name: bp.dyn.PoissonGroup(GROUPS[name], freqs=bm.Variable(jnp.zeros(1))) for name in "AB"}
            )
            paths = []
            for post, cell in self.cells.items():
                inhibitory = post == "I"
                outside = 1.62 if inhibitory else 2.1
                paths.append(fast(self.noise[post], cell, outside, 2.0, 0.0, None, one=True))
                if post in self.seen:
                    paths.append(fast(self.seen[post], cell, outside, 2.0, 0.0, None, one=True))
                for pre, factors in PATTERN.items():
                    factor = factors["ABNI".index(post)]
                    paths.append(fast(self.cells[pre], cell, factor * (0.04 if inhibitory else 0.05), 2.0, 0.0, 0.5))
                    paths.append(slow(self.cells[pre], cell, factor * (0.13 if inhibitory else 0.165)))
                paths.append(fast(self.cells["I"], cell, 1.0 if inhibitory else 1.3, 5.0, -70.0, 0.5))
            self.paths = bm.NodeList(paths)

        @staticmethod
        def cell(n: int, inhibitory: bool) -> Any:
            tau, r, period = (10.0, 0.05, 1.0) if inhibitory else (20.0, 0.04, 2.0)
            return bp.dyn.LifRef(n, tau=tau, R=r, tau_ref=period, V_rest=-70.0, V_reset=-55.0, V_th=-50.0,
                                 V_initializer=bp.init.OneInit(-70.0))  # fmt: skip

        def update(self, shown: Any) -> Any:
            for k, source in enumerate(self.seen.values()):
                source.freqs.value = shown[k : k + 1]
            for node in (*self.seen.values(), *self.noise.values(), *self.paths):
                node()
            return jnp.stack([cell().sum() for cell in self.cells.values()])

    def trial(shown: Any) -> Any:
        net = Network()

        def step(i: Any, now: Any) -> Any:
            bp.share.save(t=i * DT, dt=DT, i=i)
            return net.update(now)

        return bm.for_loop(step, (jnp.arange(len(shown)), shown), progress_bar=False)

    every = brainstate.transform.jit(brainstate.transform.vmap(trial))
    given = jnp.asarray(rates)
    return lambda: np.asarray(every(given))


def side(name: str, folder: Path, trials: int) -> None:
    """One side: seconds of a first and a further call; the spikes in a file."""
    call = {"bdtorch": bdtorch_side, "brainpy": brainpy_side}[name](evidence(trials))
    times, spikes = timed(call, 1)
    np.save(folder / f"{name}.npy", spikes)
    print(json.dumps(times))


def group_rates(spikes: np.ndarray) -> np.ndarray:
    """Hz, means over trials of the winner of A and B, the loser, N and I: before, at the end of the stimulus, and after."""
    steps = [(ON - 300.0, ON), (OFF - 300.0, OFF), (END - 300.0, END)]
    mean = np.stack([spikes[:, round(a / DT) : round(b / DT)].mean(1) for a, b in steps], 1)
    rates = mean / np.array(list(GROUPS.values())) * (1000.0 / DT)
    won = rates[:, 1, 0] > rates[:, 1, 1]
    rates[~won] = rates[~won][..., [1, 0, 2, 3]]
    averages: np.ndarray = rates.mean(0)
    return averages


def main() -> None:
    """Both sides, for one trial and for many at each coherence; a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8, help="at each coherence")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", nargs=3, metavar=("NAME", "FOLDER", "TRIALS"), help="used by the program itself")
    arguments = parser.parse_args()
    if arguments.side:
        name, folder, trials = arguments.side
        side(name, Path(folder), int(trials))
        return
    times: dict[str, dict[str, float]] = {}
    rates: dict[str, np.ndarray] = {}
    members = arguments.trials * len(COHERENCES)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("bdtorch", "brainpy"):
            times[name] = ran(name, "benchmarks.decision", folder, arguments.trials)
            rates[name] = group_rates(np.load(Path(folder) / f"{name}.npy").astype(float))
    print(f"{members} trials of {END / 1000.0:g} s, {sum(GROUPS.values()):,} neurons, steps of {DT} ms, one core")
    print(
        "| | s a call | the processor's | s a trial | first call | Hz before: winner, loser, N, I | end of stimulus | after |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, seconds in times.items():
        parts = " | ".join(", ".join(f"{rate:.1f}" for rate in row) for row in rates[name])
        a_call = f"{seconds['median']:.2f} | {seconds['processor']:.2f}"
        print(f"| {name} | {a_call} | {seconds['processor'] / members:.4f} | {seconds['first']:.1f} | {parts} |")
    ratio, by_processor = (times["brainpy"][key] / times["bdtorch"][key] for key in ("median", "processor"))
    print(f"ratio {ratio:.1f}, by the processor's seconds {by_processor:.1f}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        lists = {name: value.tolist() for name, value in rates.items()}
        arguments.json.write_text(json.dumps({"trials": members, "times": times, "rates": lists, "ratio": ratio}))
    difference = np.abs(rates["bdtorch"] - rates["brainpy"])
    if (difference > np.maximum(1.0, 0.15 * rates["brainpy"])).any():
        sys.exit("the rates differ: no comparison")


if __name__ == "__main__":
    main()
