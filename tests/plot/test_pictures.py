"""The artists of every picture hold the data."""

import itertools
import sys

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

from matplotlib import pyplot

from bdtorch import plot
from bdtorch.simulate import Solution, Spikes


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


def random_spikes(neurons=40, steps=300, *, seed=0, dt=0.5, start=20):
    dense = torch.rand(steps, neurons, generator=torch.Generator().manual_seed(seed)) < 0.05
    step, index = dense.nonzero().unbind(1)
    return Spikes(step + start + 1, index, step.new_empty((len(step), 0)), neurons, (), dt, start, start + steps)


def dots(ax, number=0):
    return np.asarray(ax.collections[number].get_offsets())


def test_raster_draws_every_spike():
    spikes = random_spikes()
    ax = plot.raster(spikes)
    np.testing.assert_allclose(dots(ax), np.stack([spikes.times.numpy(), spikes.index.numpy()], 1))
    assert ax.get_xlim() == (10.0, 160.0)
    assert ax.get_xlabel() == "time (ms)"
    assert ax.get_ylabel() == "neuron"


def test_raster_stacks_populations():
    first, second = random_spikes(30), random_spikes(10, seed=1)
    ax = plot.raster({"E": first, "I": second})
    np.testing.assert_allclose(dots(ax, 0)[:, 1], first.index)
    np.testing.assert_allclose(dots(ax, 1)[:, 1], second.index + 30)
    assert [text.get_text() for text in ax.texts] == ["E", "I"]
    assert ax.get_ylim() == (-0.5, 39.5)


def test_raster_says_that_it_left_neurons_out():
    spikes = random_spikes(100)
    ax = plot.raster(spikes, max_neurons=30)
    shown = spikes.index % 4 == 0
    np.testing.assert_allclose(dots(ax)[:, 1], spikes.index[shown])
    np.testing.assert_allclose(dots(ax)[:, 0], spikes.times[shown])
    assert ax.get_ylabel() == "neuron (25 of 100 drawn)"


def test_rate_holds_the_counts():
    spikes = random_spikes()
    ax = plot.rate(spikes, bin=40.0)
    values, edges, _ = ax.patches[0].get_data()
    np.testing.assert_allclose(edges, [10.0, 50.0, 90.0, 130.0, 160.0])
    counts = values * np.diff(edges) * 1e-3 * spikes.size
    assert counts.sum() == pytest.approx(len(spikes))
    np.testing.assert_allclose(counts, np.histogram(spikes.times.numpy() - 0.25, edges)[0])
    assert "Hz" in ax.get_ylabel()


def test_rate_of_several_populations():
    populations = {"E": random_spikes(30), "I": random_spikes(10, seed=1)}
    ax = plot.rate(populations, 10.0)
    assert len(ax.patches) == 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["E", "I"]


def test_traces_hold_the_values_and_spread_them():
    times, values = torch.arange(50) * 0.1, torch.randn(50, 3)
    ax = plot.traces(times, values, unit="mV", name="v", spread=2.0)
    for number, line in enumerate(ax.lines):
        np.testing.assert_allclose(line.get_xdata(), times.numpy())
        np.testing.assert_allclose(line.get_ydata(), values[:, number].double().numpy() + 2.0 * number)
    assert len(ax.lines) == 3
    assert ax.get_ylabel() == "v (mV)"
    assert len(plot.traces(times, values[:, 0].requires_grad_()).lines) == 1


def test_traces_of_a_solution_bear_the_times_of_the_record():
    values = torch.arange(5.0)
    sol = Solution({}, {"v": values, "s": random_spikes()}, 0.5, 4, 10, "reference", every={"v": 2, "s": 1})
    ax = plot.traces(sol, "v", unit="mV")
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [3.0, 4.0, 5.0, 6.0, 7.0])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), values)
    assert ax.get_ylabel() == "v (mV)"
    with pytest.raises(TypeError, match=r"traces\(sol, 's'\).*got Spikes"):
        plot.traces(sol, "s")
    with pytest.raises(KeyError, match="'w'"):
        plot.traces(sol, "w")


def test_pictures_go_into_given_axes_without_frames():
    spikes = random_spikes()
    _, axes = pyplot.subplots(3)
    assert plot.raster(spikes, axes[0]) is axes[0]
    assert plot.rate(spikes, 10.0, axes[1]) is axes[1]
    assert plot.traces(torch.arange(3), torch.arange(3.0), axes[2]) is axes[2]
    assert not any(ax.spines[side].get_visible() for ax in axes for side in ("top", "right"))
    assert pyplot.get_fignums() == [1]


def test_silence_can_be_drawn():
    none = torch.empty(0, dtype=torch.int64)
    silent = Spikes(none, none, none.reshape(0, 0), 5, (), 1.0, 0, 100)
    assert len(dots(plot.raster(silent))) == 0
    assert plot.rate(silent, 10.0).patches[0].get_data().values.tolist() == [0.0] * 10


def test_bad_input_is_named():
    spikes = random_spikes()
    batched = Spikes(spikes.step, spikes.index, torch.zeros(len(spikes), 1, dtype=torch.int64), 40, (2,), 0.5, 20, 320)
    with pytest.raises(ValueError, match=r"raster\(spikes=...\).*batch \(2,\).*spikes.of"):
        plot.raster(batched)
    with pytest.raises(ValueError, match=r"rate\(spikes=\{'E': ...\}\).*batch"):
        plot.rate({"E": batched}, 10.0)
    with pytest.raises(TypeError, match=r"raster\(spikes=...\).*got Tensor"):
        plot.raster(spikes.pairs)
    with pytest.raises(ValueError, match=r"raster\(spikes=...\).*at least one population"):
        plot.raster({})
    with pytest.raises(ValueError, match=r"max_neurons=...\).*got 0"):
        plot.raster(spikes, max_neurons=0)
    with pytest.raises(ValueError, match=r"bin=...\)"):
        plot.rate(spikes, 0.3)
    with pytest.raises(ValueError, match=r"traces\(times, values\).*\(3,\) and \(4,\)"):
        plot.traces(torch.arange(3), torch.arange(4.0))
    with pytest.raises(ValueError, match=r"traces\(times, values\).*batch"):
        plot.traces(torch.arange(3), torch.zeros(3, 2, 2))
    with pytest.raises(TypeError, match=r"traces\(times, values\).*got list and Tensor"):
        plot.traces([0.0], torch.zeros(1))
    with pytest.raises(TypeError, match=r"ax=...\).*got str"):
        plot.raster(spikes, "here")
    assert not pyplot.get_fignums()


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'bdtorch\[plot\]'"):
        plot.raster(random_spikes())


SEEN = {  # what remains of linear RGB with all cones, and without those for long or for middle wavelengths
    "all": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
}  # fmt: skip
"""Machado, Oliveira & Fernandes (2009), doi:10.1109/TVCG.2009.113."""


def lab(colour, seen):
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = to_xyz @ np.clip(seen @ linear, 0.0, 1.0) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SEEN)
def test_colours_are_told_apart(sight):
    """A distance of 2.3 in L*a*b* is just noticed; thin lines want ten times as much, and to be darker than paper."""
    seen = [lab(colour, SEEN[sight]) for colour in plot.COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 25.0
    assert max(colour[0] for colour in seen) < 80.0
