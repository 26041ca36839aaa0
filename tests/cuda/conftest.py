"""The CUDA sources, compiled for the CPU simulator of tests/cuda/simulator."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bdtorch.ops  # noqa: F401  the schemas' library first

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def simulated_ops() -> object:
    """``torch.ops.bdtorch_sim``: the raw CUDA ops for CPU tensors, and the controls of the simulator."""
    lib = ROOT / "build" / "simulator" / "lib"
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(lib)],
        cwd=ROOT,
        env=os.environ | {"BDTORCH_SIM": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    torch.ops.load_library(lib / "bdtorch" / "_C_sim.so")
    return torch.ops.bdtorch_sim
