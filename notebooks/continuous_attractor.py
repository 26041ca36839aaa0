# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""A continuous attractor network: its ring of slow points, the modes of a bump, and how a bump follows a stimulus."""

# %% [markdown]
# # A ring of memories
#
# 512 units with preferred angles excite their neighbours and inhibit all by division. Such a network holds a bump of
# activity at any angle: its slow points form a ring. From 629 noisy bumps the analysis finds them; linearised there, the
# network has one mode that neither grows nor decays, and it moves the bump along the ring. The same module is then
# simulated with a stimulus that moves.

# %%
from __future__ import annotations

import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import bdtorch as bt
from notebooks import _show

UNITS, STARTS, TOLERANCE = 512, 629, 1e-7  # of the mean square of the derivative, as published


def network() -> bt.rates.ContinuousAttractor:
    """The published one: tau 1, k 0.1, a 0.5, J0 4."""
    return bt.rates.ContinuousAttractor(UNITS, tau=1.0, k=0.1, a=0.5, j0=4.0, dtype=torch.float64)


# %% [markdown]
# ## Slow points and modes


# %%
def slow_points(system: bt.rates.ContinuousAttractor) -> bt.analyze.FixedPoints:
    """From bumps of height 20 every 0.01 rad, with noise of standard deviation 0.01."""
    angles = -math.pi + 0.01 * torch.arange(STARTS, dtype=torch.float64)
    noise = torch.randn(STARTS, UNITS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return bt.analyze.slow_points(
        system, system.bump(angles, 20.0) + 0.01 * noise, tolerance=0.5 * UNITS * TOLERANCE, unique=5e-3
    )


def tangent(points: Tensor) -> Tensor:
    """The direction along the ring at each point, of unit length: the points' derivative around the circle."""
    frequency = 1j * torch.fft.rfftfreq(points.shape[-1], 1.0 / points.shape[-1], dtype=torch.float64)
    slope = torch.fft.irfft(frequency * torch.fft.rfft(points), points.shape[-1])
    return slope / slope.norm(dim=-1, keepdim=True)


# %% [markdown]
# ## Tracking
#
# A stimulus jumps by half a radian and then circles the ring; the bump follows with a lag.


# %%
def tracking(system: bt.rates.ContinuousAttractor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Times, the stimulus' angles and the bump's; one turn in 400 time constants after a jump and a pause of 50."""
    dt, turn, pause = 0.1, 400.0, 50.0
    times = dt * torch.arange(1, round((pause + turn) / dt) + 1, dtype=torch.float64)
    stimulus = 0.5 + 2.0 * math.pi / turn * (times - pause).clamp_min(0.0)
    inputs = system.bump(stimulus, 0.3 * system.bump_height)
    first = system.State(u=start)
    sol = bt.simulate(system, inputs, dt=dt, state=first, progress=False)
    return times, stimulus, system.decode(sol.out)


def main(quick: bool = True) -> dict[str, float]:
    """Find, linearise, track; table and picture. Quick and full are the same."""
    system = network()
    found = slow_points(system)
    made = bt.analyze.linearise(system, found.x[:6])
    zero = made.eigenvalues.abs() < 1e-2
    along = (made.right[:, :, 0].real * tangent(found.x[:6])).sum(1).abs()
    centre = found.x[system.decode(found.x).abs().argmin()]
    times, stimulus, bump = tracking(system, centre)
    lag = torch.remainder(stimulus - bump + math.pi, 2.0 * math.pi) - math.pi
    angles = system.decode(found.x).sort()[0]
    gaps = torch.cat([angles, angles[:1] + 2.0 * math.pi]).diff()
    _, sizes, _ = torch.linalg.svd(found.x - found.x.mean(0), full_matrices=False)
    pairs = (sizes[:4:2] - sizes[1:4:2]).abs() / sizes[:4:2]
    results = {
        "converged": float(found.converged.double().mean()),
        "points": float(len(found)),
        "largest_gap": float(gaps.max()),
        "height": float(found.x.amax(1).mean()),
        "theory_height": system.bump_height,
        "pair_difference": float(pairs.max()),
        "zero_modes": float(zero.sum(1).double().mean()),
        "zero_eigenvalue": float(made.eigenvalues[:, 0].abs().max()),
        "along_ring": float(along.min()),
        "second_eigenvalue": float(made.eigenvalues[:, 1].real.mean()),
        "third_eigenvalue": float(made.eigenvalues[:, 2].real.mean()),
        "lag": float(lag[-500:].mean()),
        "jump_error": float(lag[(times > 45.0) & (times < 50.0)].abs().max()),
    }
    _show.table(
        "Continuous attractor, 512 units, 629 starts (theory: Fung, Wong & Wu 2010)",
        [
            ("starts that converge, fraction", results["converged"], "ring of bumps"),
            ("distinct slow points", len(found), None),
            ("largest gap between their angles, rad", results["largest_gap"], None),
            ("height of the bump", results["height"], f"theory {system.bump_height:.4g}"),
            ("eigenvalues within 0.01 of 0, each point", results["zero_modes"], "1"),
            ("overlap of that mode with the ring", results["along_ring"], "1"),
            ("second eigenvalue times tau", results["second_eigenvalue"], "theory -0.5"),
            ("third eigenvalue times tau", results["third_eigenvalue"], "theory -0.75"),
            ("lag behind a stimulus of 0.0157 rad/tau, rad", results["lag"], None),
        ],
    )
    draw(system, found, made, times, stimulus, bump)
    return results


# %% [markdown]
# ## What to see
#
# The slow points lie on a closed ring; each is a bump of the same height at another angle. At every one of them exactly
# one eigenvalue is zero, and its mode is the ring's tangent; the others are those of theory, $-1 + 2^{-m}$. The bump
# jumps after the stimulus and then follows it at a constant lag.


# %%
@_show.styled
def draw(
    system: bt.rates.ContinuousAttractor, found: bt.analyze.FixedPoints, made: bt.analyze.Linearisation, *track: Tensor
) -> None:
    """Ring, a few bumps, spectrum, tracking and its lag."""
    times, stimulus, bump = track
    figure, axes = plt.subplot_mosaic("AABB;AABB;CCDD;CCEE", figsize=(9, 7.2))
    found.plot(axes["A"]).set(title=f"{len(found)} slow points", aspect="equal")
    axes["A"].get_legend().remove()
    angles = -math.pi + 2.0 * math.pi / UNITS * torch.arange(UNITS)
    order = system.decode(found.x).argsort()
    for place, colour in zip(
        range(0, len(found), len(found) // 8),
        plt.get_cmap("twilight_shifted")(torch.linspace(0.06, 0.94, 9)[:8].tolist()),
        strict=False,
    ):
        axes["B"].plot(angles, found.x[order[place]], color=colour)
    axes["B"].set(xlabel="preferred angle (rad)", ylabel="$u$", title="Eight of them")
    made.plot(0, axes["C"]).set(
        title="Eigenvalues at one of them", xlabel=r"real part $\times\,\tau$", ylabel=r"imaginary part $\times\,\tau$"
    )
    for x, style, label in zip((stimulus, bump), (_show.BEHIND, _show.COLOURS[1]), ("stimulus", "bump"), strict=True):
        wrapped = torch.remainder(x + math.pi, 2.0 * math.pi) - math.pi
        wrapped[1:][wrapped.diff().abs() > math.pi] = math.nan  # no line across the picture where an angle wraps
        axes["D"].plot(times, wrapped, color=style, label=label, lw=3.0 if label == "stimulus" else 1.3)
    axes["D"].set(ylabel="angle (rad)", title="Tracking", ylim=(-3.3, 3.3), yticks=(-3, 0, 3))
    axes["D"].tick_params(labelbottom=False)
    axes["D"].legend()
    axes["E"].plot(times, torch.remainder(stimulus - bump + math.pi, 2.0 * math.pi) - math.pi, color=_show.COLOURS[1])
    axes["E"].axhline(0.0, color=_show.BEHIND, lw=0.8)
    axes["E"].set(xlabel=r"time / $\tau$", ylabel="lag (rad)")
    figure.align_ylabels([axes["D"], axes["E"]])
    _show.keep(figure, "continuous_attractor")


# %%
if __name__ == "__main__":
    _show.script(main)
