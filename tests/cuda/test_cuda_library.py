"""The library that nvcc built, where there is one: it loads without a GPU and without libtorch_cuda, and holds every op."""

import re
from pathlib import Path

import pytest
import torch

import bdtorch.ops

LIBRARIES = sorted(Path(bdtorch.ops.__file__).resolve().parents[1].glob("_C_cuda*.so"))
SCHEMAS = [schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("bdtorch::")]
ON_THE_CPU = {  # they list synapses, for the CPU
    f"bdtorch::{name}"
    for name in (
        "procedural_counts",
        "procedural_rows",
        "draw_bernoulli",
        "draw_distinct",
        "csr_columns",
        "csr_transpose",
        "csr_sort",
    )
}


def test_every_op_has_a_kernel_for_the_cpu() -> None:
    assert len(SCHEMAS) >= 32
    for name in SCHEMAS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU"), name


@pytest.mark.skipif(not LIBRARIES, reason="built without nvcc")
def test_every_op_has_a_kernel_for_cuda() -> None:
    for library in LIBRARIES:
        torch.ops.load_library(library)
    without = {name for name in SCHEMAS if not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")}
    assert without == ON_THE_CPU


@pytest.mark.skipif(not LIBRARIES, reason="built without nvcc")
def test_kernels_are_compiled_for_both_architectures_and_as_ptx() -> None:
    """What nvcc embeds names its target: cubins by the option that made them, PTX in clear text or compressed."""
    for library in LIBRARIES:
        content = library.read_bytes()
        architectures = {int(found) for found in re.findall(rb"sm_(\d+)", content)}
        assert {80, 90} <= architectures, architectures


def test_every_op_runs_on_the_simulator(simulated_ops: object) -> None:
    """`tests/cuda/test_simulated_*.py` execute the kernels of all that is registered here."""
    without = {
        name
        for name in SCHEMAS
        if not torch._C._dispatch_has_kernel_for_dispatch_key(name.replace("bdtorch::", "bdtorch_sim::"), "CPU")
    }
    assert without == ON_THE_CPU
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_simulated_*.py"))
    public = {name.partition("::")[2] for name in SCHEMAS if "::_" not in name and name not in ON_THE_CPU}
    assert {name for name in public if name not in sources} == set()
