"""The self-test: it passes here, says what it did not check, and finds operators that are wrong."""

import subprocess
import sys

import pytest
import torch

from bdtorch import ops
from bdtorch.ops import selftest


def test_it_passes_and_says_that_there_is_no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, "-m", "bdtorch.ops.selftest"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the CUDA operators were NOT checked" in done.stdout
    assert "0 of" in done.stdout.splitlines()[-1] and "FAILED" not in done.stdout
    for name in ("event_csr", "event_csr_t", "csr_outer", "procedural_event", "procedural_gather", "uniform"):
        assert f"ok     {name}," in done.stdout


def test_the_comparison_of_devices_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU in the place of the GPU: every check for one is made, and passes."""
    cpu = torch.device("cpu")
    checks = [*selftest.sparse_checks(True), *selftest.procedural_checks(True), *selftest.random_checks(True)]
    assert all(check.error(cpu) is None for check in checks)
    names = {check.name.partition(",")[0] for check in checks}
    assert {"event_csr", "event_csr_t", "csr_outer", "procedural_event", "procedural_gather"} <= names
    assert {"uniform", "normal", "exponential", "bernoulli", "poisson", "binomial"} <= names


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("event_csr_t", lambda right: lambda *arguments: right(*arguments) * 1.01),
        ("csr_outer", lambda right: lambda *arguments: right(*arguments).double()),
        ("procedural_event", lambda right: lambda *arguments: right(*arguments)[..., 1:]),
    ],
)
def test_wrong_operators_are_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, name: str, wrong
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(ops, name, wrong(getattr(ops, name)))
    assert selftest.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"FAILED {name},") for line in lines)
    assert not any(line.startswith("FAILED") and not line.startswith(f"FAILED {name},") for line in lines)
