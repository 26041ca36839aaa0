"""The kernel header of procedural matrices by itself, as generated time loops include it."""

import os
import subprocess
from pathlib import Path

from bdtorch.ops import include_dir


def test_header_is_plain_cpp17_and_stays_within_its_arrays(tmp_path: Path) -> None:
    source = Path(__file__).parent / "procedural_kernels.cpp"
    program = tmp_path / "procedural_kernels"
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", f"-I{include_dir()}"]
    subprocess.run([os.environ.get("CXX", "g++"), *flags, str(source), "-o", str(program)], check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failures" in result.stdout
