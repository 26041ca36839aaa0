"""The self-test: it passes here, says what it did not check, and finds operators that are wrong."""

import subprocess
import sys

import pytest
import torch

from bdtorch import ops
from bdtorch.ops import selftest

OPERATORS = [
    "event_csr", "event_csr_t", "csr_outer", "csr_sampled", "event_dense", "event_dense_t", "plasticity_dense, rows",
    "plasticity_dense, columns", "plasticity_csr", "plasticity_csr, by targets", "event_csr_delayed", "eligibility_csr",
    "segment_sum", "segment_mean", "segment_max", "segment_min", "segment_softmax", "procedural_event",
    "procedural_gather", "uniform", "rls_update", "csr_sort", "csr_transpose", "draw_bernoulli", "draw_distinct",
]  # fmt: skip


def test_it_passes_and_says_that_there_is_no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, "-m", "bdtorch.ops.selftest"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the CUDA operators were NOT checked" in done.stdout
    assert "0 of" in done.stdout.splitlines()[-1] and "FAILED" not in done.stdout
    for name in OPERATORS:
        assert f"ok     {name}" in done.stdout, name


def test_the_comparison_of_devices_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU in the place of the GPU: every check for one is made, and passes."""
    cpu = torch.device("cpu")
    checks = [*selftest.all_checks(True)]
    assert [check.name for check in checks if check.error(cpu) is not None] == []
    names = " ".join(check.name for check in checks)
    assert all(name in names for name in (*OPERATORS, "normal", "exponential", "bernoulli", "poisson", "binomial"))
    for name in ("event_csr", "event_csr_delayed", "procedural_event"):
        assert f"{name}, deterministic" in names


def test_every_public_operator_is_checked() -> None:
    """What has a kernel, a door or a reduction is in the list above; the rest makes or checks arguments, or gathers."""
    drawn = {"uniform", "normal", "exponential", "bernoulli", "poisson", "binomial"}
    others = {"include_dir", "check_delays", "check_csr", "eligibility_gradient", "ProceduralMatrix", "fold", "make_key",
              "procedural_counts", "procedural_rows", "pre2post", "pre2syn", "syn2post", "NativeKernel", "define",
              "native_kernel", "python_function", "set_native_kernel", "rls_gain", "rls_inverse", "rls_memory"}  # fmt: skip
    doors = {name for name, value in vars(ops).items() if not name.startswith("_") and callable(value)}
    assert doors == drawn | others | {name.partition(",")[0] for name in OPERATORS}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("event_dense_t", lambda right: lambda *arguments: right(*arguments) * 1.01),
        ("plasticity_csr", lambda right: lambda *arguments, **bounds: right(*arguments)),
        ("event_csr_delayed", lambda right: lambda *arguments: right(*arguments[:-1], arguments[-1] + 1)),
        ("eligibility_csr", lambda right: lambda *arguments: right(arguments[0], *arguments[1:]) - 1),
        ("rls_update", lambda right: lambda *arguments, **options: right(*arguments, **options, forgetting=0.99)),
        ("csr_transpose", lambda right: lambda *arguments: (*right(*arguments)[:2], right(*arguments)[2] + 1)),
        ("draw_distinct", lambda right: lambda seed, *arguments, **options: right(seed + 1, *arguments, **options)),
        ("segment_softmax", lambda right: lambda *arguments: right(*arguments) * 2),
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
    assert any(line.startswith(f"FAILED {name}") for line in lines)
    assert not any(line.startswith("FAILED") and not line.startswith(f"FAILED {name}") for line in lines)
