"""Headers that users' operators include are part of the loops that are compiled from them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.simulate.loops.native import compiler
from bdtorch.simulate.loops.native.headers import includes_others, read_by_compiler

NUMBERS = itertools.count()
FUNCTION = """
namespace {space} {{
inline void apply(bdtorch::View<const float> x, bdtorch::View<float> out) {{
  for (int64_t k = 0; k < out.numel(); ++k) out.data[k] = factor() * x.data[k];
}}
}}
"""


@pytest.fixture
def compilations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    monkeypatch.setenv("BDTORCH_CACHE_DIR", str(tmp_path / "cache"))
    done: list[tuple[str, ...]] = []
    compile_in = compiler._compile
    monkeypatch.setattr(
        compiler, "_compile", lambda command, *rest: (done.append(command), compile_in(command, *rest))[1]
    )
    return done


def write(header: Path, text: str) -> None:
    header.write_text(text)
    os.utime(header, (1, 1))  # older than any compilation, and as old as before


def operator(include: str) -> Any:
    space = f"included_{next(NUMBERS)}"
    return bt.ops.define(
        f"{space}(Tensor x) -> Tensor", lambda x: 2.0 * x, fake=torch.empty_like,
        native=bt.ops.NativeKernel(include + FUNCTION.format(space=space), f"{space}::apply"),
    )  # fmt: skip


class Multiplying(bt.DynamicalSystem):
    def __init__(self, op: Any) -> None:
        super().__init__((3,))
        self.op = op

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.ones(3)

    def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        after = self.op(state)
        return after, after


def factor(system: bt.DynamicalSystem) -> float:
    return float(bt.simulate(system, dt=1.0, duration=1.0, loop="native").out[0, 0])


def test_a_changed_header_is_another_loop(tmp_path: Path, compilations: list[Any]) -> None:
    """Directly included or not, in the same process, in the same system; changed back, it is the old loop again."""
    inner, outer = tmp_path / "in ner$.h", tmp_path / "outer.h"
    write(inner, "#pragma once\ninline float factor() { return 3.0f; }\n")
    write(outer, '#pragma once\n#include "in ner$.h"\n')
    system = Multiplying(operator(f'#include "{outer}"\n'))
    assert [factor(system), factor(system)] == [3.0, 3.0]
    assert len(compilations) == 1
    write(inner, "#pragma once\ninline float factor() { return 5.0f; }\n")
    assert [factor(system), factor(system)] == [5.0, 5.0]
    assert len(compilations) == 2
    write(outer, "#pragma once\ninline float factor() { return 7.0f; }\n")
    assert factor(system) == 7.0
    inner.unlink()  # no longer part of it
    assert factor(system) == 7.0
    assert len(compilations) == 3
    write(inner, "#pragma once\ninline float factor() { return 3.0f; }\n")
    write(outer, '#pragma once\n#include "in ner$.h"\n')
    assert factor(system) == 3.0


def test_headers_on_the_search_path(tmp_path: Path, compilations: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the compiler takes for the system's own as well."""
    header = tmp_path / "found.h"
    for variable in ("CPATH", "CPLUS_INCLUDE_PATH"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(tmp_path))
            system = Multiplying(operator("#include <found.h>\n"))
            for number in (3.0, 5.0):
                write(header, f"#pragma once\ninline float factor() {{ return {number}f; }}\n")
                assert factor(system) == number


def test_a_missing_header_is_an_error_and_then_found(tmp_path: Path, compilations: list[Any]) -> None:
    header = tmp_path / "late.h"
    system = Multiplying(operator(f'#include "{header}"\n'))
    with pytest.raises(bt.LoopError, match=r"late\.h"):
        factor(system)
    write(header, "inline float factor() { return 3.0f; }\n")
    assert factor(system) == 3.0
    header.unlink()
    with pytest.raises(bt.LoopError, match=r"late\.h"):
        factor(system)


def test_a_header_that_changes_meanwhile_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDTORCH_CACHE_DIR", str(tmp_path / "cache"))
    header = tmp_path / "changing.h"
    write(header, "inline float factor() { return 3.0f; }\n")
    compile_in, done = compiler._compile, []

    def interrupted(*arguments: Any) -> Path:
        library = compile_in(*arguments)
        done.append(library)
        if len(done) == 1:
            header.write_text("inline float factor() { return 5.0f; }\n")
        return library

    monkeypatch.setattr(compiler, "_compile", interrupted)
    system = Multiplying(operator(f'#include "{header}"\n'))
    assert factor(system) == 5.0
    assert len(done) == 2


def test_another_process_finds_the_loop_or_makes_its_own(tmp_path: Path) -> None:
    header = tmp_path / "shared.h"
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.simulate.native.test_included_headers import *
from bdtorch.simulate.loops.native import compiler
done = []
compile_in = compiler._compile
compiler._compile = lambda *arguments: (done.append(1), compile_in(*arguments))[1]
print(factor(Multiplying(operator('#include "{header}"\\n'))), len(done))
"""
    environment = {**os.environ, "BDTORCH_CACHE_DIR": str(tmp_path / "cache")}
    seen = []
    for number in (3, 3, 5):
        write(header, f"inline float factor() {{ return {number}.0f; }}\n")
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        seen.append(done.stdout.split())
    assert seen == [["3.0", "1"], ["3.0", "0"], ["5.0", "1"]]


def test_a_damaged_list_is_made_again(tmp_path: Path, compilations: list[Any]) -> None:
    header = tmp_path / "one.h"
    write(header, "inline float factor() { return 3.0f; }\n")
    system = Multiplying(operator(f'#include "{header}"\n'))
    for text in (None, "", "[", '{"a": 1}', "[1]"):
        for listed in (tmp_path / "cache").glob("loop-*.json"):
            if text is not None:
                listed.write_text(text)
        assert factor(system) == 3.0
    assert len(compilations) == 5


@pytest.mark.parametrize(
    ("source", "others"),
    [
        ("int x;", False),
        ('#include "bdtorch/view.h"\n', False),
        ("#include <cmath>\n", True),
        ('#include "bdtorch/view.h"\n  #  include "a.h"\n', True),
        ("#inc\\\nlude <a.h>", True),
        ("%:include <a.h>\n", True),
        ("#/**/include <a.h>\n", True),
        ("#define H <a.h>\n#include H\n", True),
    ],
)
def test_what_includes_other_files(source: str, others: bool) -> None:
    assert includes_others(source) is others


def test_files_of_a_rule(tmp_path: Path) -> None:
    rule = f"{tmp_path}/loop.so: {tmp_path}/loop.cpp /a/b\\ c.h \\\n  /a/d$$.h /a/\\#e.h\n"
    assert read_by_compiler(rule, tmp_path) == ["/a/#e.h", "/a/b c.h", "/a/d$.h"]
