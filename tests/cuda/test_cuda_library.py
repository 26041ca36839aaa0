"""The library that nvcc built, where there is one: it loads without a GPU and without libtorch_cuda."""

from pathlib import Path

import pytest
import torch

import bdtorch.ops

LIBRARIES = sorted(Path(bdtorch.ops.__file__).resolve().parents[1].glob("_C_cuda*.so"))


@pytest.mark.skipif(not LIBRARIES, reason="built without nvcc")
@pytest.mark.parametrize("name", ["event_csr", "event_csr_ordered", "event_csr_t", "csr_outer"])
def test_cuda_kernels_are_registered_for_both_twins(name: str) -> None:
    for library in LIBRARIES:
        torch.ops.load_library(library)
    for op in (name, f"_{name}_raw"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"bdtorch::{op}", "CUDA")
