"""The README's examples run as they are printed."""

import re
from pathlib import Path

import matplotlib
import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)

    def run(number: int) -> list[str]:
        exec(compile(BLOCKS[number], f"README.md, example {number + 1}", "exec"), {"__name__": "readme"})
        return capsys.readouterr().out.splitlines()

    return run


def test_the_network(printed, tmp_path):
    (line,) = printed(0)
    rate, _, spikes, *_, loop, _ = line.replace(",", "").split()
    assert 19.0 < float(rate) < 23.0
    assert int(spikes) == pytest.approx(3200 * float(rate), rel=0.01)
    assert loop == "native"
    assert (tmp_path / "raster.png").stat().st_size > 10_000


def test_the_neuron(printed):
    (line,) = printed(1)
    rest, first, second = map(float, re.findall(r"-?\d+\.\d+", line))
    assert rest < -0.5 and first > 1.5 and second > 1.5


def test_training(printed):
    gradient, shape = printed(2)
    assert abs(float(re.search(r"-?\d+\.\d+(e-\d+)?", gradient).group())) > 0
    assert shape == "torch.Size([8, 10])"


def test_the_examples_keep_their_promised_length():
    lengths = [len([line for line in block.splitlines() if line.strip()]) for block in BLOCKS]
    assert lengths[0] <= 20 and lengths[1] <= 30
