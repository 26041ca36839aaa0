"""Pictures of fixed points and spectra, with Matplotlib only once something is drawn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bdtorch._axes import BLUE, GREY, RED, colour, prepared
from bdtorch.analyze._draw import legend, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bdtorch.analyze.fixed_points import FixedPoints
    from bdtorch.analyze.linearise import Linearisation
    from bdtorch.analyze.lyapunov import LyapunovSpectrum


def _plane(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, first two principal directions ``(n, 2)`` and their shares of the variance."""
    mean = x.mean(0)
    _, size, directions = torch.linalg.svd((x - mean).double(), full_matrices=False)
    share = size.square() / size.square().sum().clamp_min(1e-300)
    pad = max(0, 2 - len(directions))
    directions = torch.nn.functional.pad(directions[:2], (0, 0, 0, pad)).to(x.dtype)
    return mean, directions.T, torch.nn.functional.pad(share[:2], (0, pad))


def draw_points(found: FixedPoints, ax: Axes | None) -> Axes:
    """The points in the plane of the first two principal components of where the starts ended."""
    ax = prepared(ax, (4.6, 4.2))
    ends = found.ends[found.end_q.isfinite() & ~found.outlier].cpu()
    if len(ends):
        mean, directions, share = _plane(found.x.cpu() if len(found) > 2 else ends)
        lost = (found.ends[~found.converged & found.end_q.isfinite()].cpu() - mean) @ directions
        if len(lost):
            ax.plot(*lost.T, "x", color=GREY, ms=3, label="not converged")
        at = (found.x.cpu() - mean) @ directions
        stable = found.linearisation.stable.cpu() if found.linearisation else torch.ones(len(at), dtype=torch.bool)
        for chosen, fill, label in ((stable, BLUE, "stable"), (~stable, "white", "unstable")):
            if bool(chosen.any()):
                name = label if found.linearisation else "points"
                ax.plot(*at[chosen].T, "o", color=BLUE, mfc=fill, ms=4 if len(at) < 100 else 2, label=name)
        labels = [f"component {k + 1} ({100 * float(share[k]):.0f} % of variance)" for k in range(2)]
        ax.set(xlabel=labels[0], ylabel=labels[1])
        legend(ax)
    note(ax, found.remarks)
    return ax


def draw_spectrum(made: Linearisation, point: int, ax: Axes | None) -> Axes:
    """Eigenvalues in the complex plane."""
    ax = prepared(ax, (4.2, 4.0))
    values = made.eigenvalues[point].cpu()
    if made.discrete:
        angle = torch.linspace(0.0, 2.0 * math.pi, 181)
        ax.plot(angle.cos(), angle.sin(), color=GREY, lw=0.8)
        ax.set_aspect("equal")
    else:
        ax.axvline(0.0, color=GREY, lw=0.8)
    growing = values.abs() > 1.0 if made.discrete else values.real > 0.0
    for chosen, ink, label in ((~growing, BLUE, "decaying"), (growing, RED, "growing")):
        if bool(chosen.any()):
            ax.plot(values.real[chosen], values.imag[chosen], "o", color=ink, ms=3, label=label)
    size = float(values.abs().max())
    if not made.discrete and float(values.imag.abs().max()) < 0.05 * size:
        ax.set_ylim(-0.5 * size, 0.5 * size)  # else an axis of rounding errors
    unit = "" if made.discrete else " (1/ms)"
    ax.set(xlabel=f"real part{unit}", ylabel=f"imaginary part{unit}")
    legend(ax)
    return ax


def draw_exponents(spectrum: LyapunovSpectrum, ax: Axes | None) -> Axes:
    """Running estimates of the exponents."""
    ax = prepared(ax, (5.2, 3.4))
    times, many = spectrum.times.cpu(), spectrum.count > 6
    for number, history in enumerate(spectrum.history.reshape(len(times), -1, spectrum.count).mean(1).cpu().T):
        label = None if many else f"{float(spectrum.exponents[..., number].mean()):.4g}"
        ax.plot(times, history, lw=1.2, color=BLUE if many else colour(number), label=label)
    ax.axhline(0.0, color=GREY, lw=0.6)
    unit = "per step" if spectrum.discrete else "per ms"
    ax.set(xlabel="steps" if spectrum.discrete else "time (ms)", ylabel=f"Lyapunov exponents ({unit})")
    ax.margins(x=0)
    legend(ax)
    return ax
