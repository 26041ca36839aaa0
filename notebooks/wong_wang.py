# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""The phase plane of a perceptual decision, and how its equilibria depend on the coherence of the stimulus."""

# %% [markdown]
# # A decision in the plane
#
# Two populations excite themselves and inhibit each other by slow synapses; the one whose synapses stay open has won.
# The same module is simulated, with its decisions, and analysed: its nullclines and equilibria at one stimulus, and all
# its equilibria as the coherence varies.

# %%
from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import torch

import bdtorch as bt
from notebooks import _show

WINDOW = {"s1": (0.0, 1.0), "s2": (0.0, 1.0)}


def decision() -> bt.rates.WongWang:
    """The parameters of the published figure (times in ms): the simplified model without AMPA between the populations."""
    return bt.rates.WongWang(
        1,
        tau=60.0,
        j_self=0.3725,
        j_cross=0.1137,
        i_0=0.3297,
        j_ext=0.00117,
        mu_0=20.0,
        coherence=0.5,
        dtype=torch.float64,
    )


# %% [markdown]
# ## What to see
#
# Left: where the nullclines cross are three equilibria. Two are attractors, the decisions; the saddle between them lies
# towards the second population's, since the stimulus favours the first, and from rest the first wins. Every simulated
# trajectory (thin lines) ends in one of the two. Right: at twice the stimulus a third attractor joins them in a narrow
# range of coherence around 0: both populations are active and none has won. The decision against the evidence vanishes
# in a fold where the evidence is clear enough, at coherence 0.56; beyond it no trial can end wrong.


# %%
def simulated(model: bt.rates.WongWang, starts: torch.Tensor) -> torch.Tensor:
    """Where the populations go in two seconds from ``starts`` (pairs), shape ``(time, starts, 2)``."""
    state = model.State(s1=starts[:, :1].clone(), s2=starts[:, 1:].clone())
    record = {"s1": bt.trace("s1", every=5), "s2": bt.trace("s2", every=5)}  # ms
    sol = bt.simulate(model, dt=1.0, duration=2000.0, state=state, record=record)
    return torch.cat([sol["s1"], sol["s2"]], dim=-1)


def main(quick: bool = True) -> dict[str, Any]:
    """Phase plane and trajectories at coherence 0.5, equilibria at all coherences; table and picture."""
    model = decision()
    plane = bt.analyze.phase_plane(model, WINDOW)
    side = torch.linspace(0.02, 0.98, 6 if quick else 12, dtype=torch.float64)
    paths = simulated(model, torch.cartesian_prod(side, side))
    attractors = torch.stack([p.x for p in plane.fixed_points if p.stable])
    distance = (paths[-1][:, None] - attractors).norm(dim=-1).amin(1)
    rest = simulated(model, torch.full((1, 2), 0.1, dtype=torch.float64))[-1, 0]
    diagram = bt.analyze.continuation(
        model, parameter="coherence", bounds=(-1.0, 1.0), parameters={"mu_0": 40.0}, window=WINDOW, max_step=0.01
    )
    folds = [p.parameters["coherence"] for p in diagram.of("fold")]
    _show.table(
        "Wong-Wang model (published: a picture; three equilibria)",
        [
            (f"coherence 0.5, {p.type} at", f"{p.x[0]:.4f}, {p.x[1]:.4f}", None)
            for p in plane.fixed_points
        ]
        + [("trajectories' ends from an attractor, at most", float(distance.max()), None)]
        + [("fold at coherence", value, None) for value in folds],
    )  # fmt: skip
    draw(plane, paths, diagram)
    return {
        "points": [(p.x.tolist(), p.type) for p in plane.fixed_points],
        "distance": float(distance.max()),
        "from_rest": rest.tolist(),
        "folds": folds,
        "diagram": diagram,
    }


@_show.styled
def draw(plane: bt.analyze.PhasePlane, paths: torch.Tensor, diagram: bt.analyze.Diagram) -> None:
    """The plane with simulated trajectories, and the diagram."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    left.plot(paths[..., 0].numpy(), paths[..., 1].numpy(), color=_show.COLOURS[4], lw=0.8, alpha=0.8)
    plane.plot(left)
    left.set(xlabel="$s_1$", ylabel="$s_2$", title="Stimulus 20 Hz, coherence 0.5")
    diagram.plot(right)
    right.set(ylabel="$s_1$", title="Stimulus 40 Hz", xticks=(-1.0, -0.5, 0.0, 0.5, 1.0))
    _show.keep(figure, "wong_wang")


# %%
if __name__ == "__main__":
    _show.script(main)
