"""The examples of the documentation run as they are printed, page by page, each page in one namespace."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import matplotlib
import pytest

SITE = Path(__file__).resolve().parents[2] / "docs" / "site"


@pytest.fixture
def page(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SITE))
    return importlib.import_module("tutorials").run


def test_first_neuron(page, tmp_path):
    found = page("tutorials/first_neuron.md")
    rates = found["rates"]
    assert (rates[found["currents"] < 15.0] == 0).all() and (rates[found["currents"] > 15.5] > 0).all()
    assert (rates.diff() >= 0).all() and 40.0 < rates[-1] < 100.0
    assert len(found["sol"]["spikes"]) > 2
    assert (tmp_path / "first_neuron.png").stat().st_size > 5_000


def test_first_network(page, tmp_path):
    found = page("tutorials/first_network.md")
    assert 0.8 < float(found["cv"][found["cv"].isfinite()].mean()) < 1.5
    assert found["sol"]["I"].rate > 5.0
    assert (tmp_path / "network.png").stat().st_size > 5_000


def test_training(page):
    found = page("tutorials/training.md")
    assert found["accuracy"] > 0.85
    assert found["trainer"].history[-1].validation["accuracy"] > 0.85
    assert found["error"] < 0.1
    positive, activity = found["positive"], found["activity"]
    assert positive.weight.shape == (1, 200) and positive.weight.min() == 0.0 < positive.weight.max()
    used = activity[100:1500, positive.weight[0] > 0].double()  # where weights are free, the residual is orthogonal
    residual = used @ positive.weight[0, positive.weight[0] > 0].double() - found["target"][100:1500, 0] - 1.0
    assert (used.mT @ residual).abs().max() < 1e-3 * (used.mT @ used).diag().max()


def test_precision(page, capsys):
    page("precision.md")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["torch.float64 torch.float64", "torch.float64 torch.float32", "torch.float32 torch.bfloat16"]


def test_your_own(page, capsys):
    found = page("tutorials/your_own.md")
    first = capsys.readouterr().out.splitlines()[0]
    rest, train = map(float, re.findall(r"\d+\.\d*", first))
    assert rest == 0.0 and train > 5.0
    assert abs(float(found["cell"].g_ca.grad)) > 0


def test_recording(page):
    found = page("recording.md")
    assert len(found["sol"]["spikes"]) > 0 and found["records"]["v"].shape == (2000, 3)
    assert found["records"].attributes["ended"] == "complete"


def test_analysis(page):
    found = page("tutorials/analysis.md")
    assert [point.parameters["i_ext"] for point in found["diagram"].of("Hopf")] == pytest.approx(
        [0.33128, 1.41872], abs=1e-4
    )
    assert len(found["plane"].fixed_points) == 1 and found["plane"].cycles[0].stable
    points = found["found"].x
    assert len(points) > 1 and found["network"](points).norm(dim=1).max() < 1e-3
    assert found["spectrum"].exponents.tolist() == pytest.approx([0.906, 0.0, -14.572], abs=0.1)
