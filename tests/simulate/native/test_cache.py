"""The cache of compiled loops: whole entries or none, named by all that makes them; and machines without a compiler."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from pathlib import Path

import pytest
import torch

import bdtorch as bt
from bdtorch.simulate.loops import LoopError
from bdtorch.simulate.loops.native import cache, compiler
from tests.simulate.native.stepping import run

V = torch.linspace(-1.0, 1.0, 9)


def simple(loop="native"):
    return run(lambda x, t: ([x[0] * 0.5], x[0]), V, loop=loop)


@pytest.fixture
def fresh_cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("BDTORCH_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_no_compiler(monkeypatch, fresh_cache):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LoopError, match=r"needs a C\+\+ compiler, and none was found: set \$CXX"):
        simple()


def test_an_unknown_compiler(monkeypatch, fresh_cache):
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(LoopError, match=r"\$CXX names none that can be found: 'no-such-compiler'"):
        simple()


def test_a_compiler_that_is_no_command_or_makes_nothing(monkeypatch, fresh_cache):
    monkeypatch.setenv("CXX", "g++ 'unclosed")
    with pytest.raises(LoopError, match=r"\$CXX is no command: \"g\+\+ 'unclosed\" \(No closing quotation\)"):
        simple()
    monkeypatch.setenv("CXX", "true")
    with pytest.raises(LoopError, match=r"needs a C\+\+ compiler, and 'true' makes no library: true -std"):
        simple()


def test_a_failing_compiler(monkeypatch, fresh_cache):
    monkeypatch.setenv("CXX", "g++ -no-such-flag")
    with pytest.raises(LoopError, match=r"the C\+\+ compiler failed on a generated loop: .*no-such-flag"):
        simple()
    assert not entries(fresh_cache)


def test_auto_falls_back_by_name(monkeypatch, fresh_cache):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sol = simple(loop="auto")
    assert sol.loop in ("inductor", "reference")
    assert any(
        "none was found" in str(w.message) and "falling back to the inductor loop" in str(w.message) for w in caught
    )


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("loop-*.so"))


def damage(path: Path, content: bytes) -> None:
    path.unlink()  # a library that is mapped must not be written to
    path.write_bytes(content)


@pytest.fixture
def own_folder(monkeypatch, tmp_path_factory):
    """A fresh folder for what cannot go to the cache."""
    folder = tmp_path_factory.mktemp("own")
    monkeypatch.setattr(cache, "_own_folder", lambda: folder)
    return folder


@pytest.mark.parametrize("place", ["file/cache", "file", "proc"])
def test_a_cache_that_cannot_be_written_is_named_and_passed_by(monkeypatch, tmp_path, own_folder, place):
    """Paths that not even root can write to: below a file, a file, and a file system that takes none."""
    (tmp_path / "file").write_text("")
    folder = "/proc/self/cache" if place == "proc" else str(tmp_path / place)
    monkeypatch.setenv("BDTORCH_CACHE_DIR", folder)
    with pytest.warns(UserWarning, match=r"cannot write its cache .*set BDTORCH_CACHE_DIR to a writable folder"):
        first = simple()
    made = entries(own_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(simple().out, first.out)  # compiles nothing, and says nothing
    assert len(made) == 1 and entries(own_folder) == made
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize(("owner", "name"), [(Path, "write_text"), (os, "replace"), (tempfile, "mkdtemp")])
def test_a_folder_that_fails_at_any_point(monkeypatch, fresh_cache, own_folder, owner, name, code):
    """Nothing half made stays, what was made before is found, and where all fails the error says what to do."""

    def refuse(*arguments, **options):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        with (
            pytest.warns(UserWarning, match="cannot write its cache"),
            pytest.raises(LoopError, match=rf"cannot write to .* either .*{os.strerror(code)}.*BDTORCH_CACHE_DIR"),
        ):
            simple()
        assert {path.name for path in fresh_cache.iterdir()} <= {".lock"}
    made = simple()
    monkeypatch.setattr(owner, name, refuse)
    assert torch.equal(simple().out, made.out)


def test_a_disk_that_is_full_for_the_compiler(monkeypatch, fresh_cache, own_folder, tmp_path_factory):
    """The compiler writes more than we do, and says so in its own way."""
    script = tmp_path_factory.mktemp("compiler") / "c++"
    full = "ld: final link failed: No space left on device"
    script.write_text(f'#!/bin/sh\ncase "$*" in *{fresh_cache}*) echo "{full}" >&2; exit 1;; esac\nexec c++ "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.warns(UserWarning, match="cannot write its cache .*No space left on device"):
        assert simple().loop == "native"


@pytest.mark.parametrize(
    "part", ["empty", "no library", "half", "one bit at", "the checksum", "longer", "another entry's"]
)
def test_a_damaged_entry_is_made_again(fresh_cache, part):
    expected = simple()
    (path,) = entries(fresh_cache)
    content = path.read_bytes()
    if part == "one bit at":
        places = [0, 100, len(content) // 2, len(content) - 20]  # of the head, of code, and of the last sections
        broken = [content[:k] + bytes([content[k] ^ 1]) + content[k + 1 :] for k in places]
    else:
        another = content[:-16] + cache._checksum(content[:-16], "0" * 32)
        broken = [
            {"empty": b"", "no library": b"no library" * 9, "half": content[: len(content) // 2],
             "the checksum": content[:-1] + bytes([content[-1] ^ 1]), "longer": content + b"0",
             "another entry's": another}[part]
        ]  # fmt: skip
    for bad in broken:
        damage(path, bad)
        assert torch.equal(simple().out, expected.out)
        assert path.read_bytes() == content


def test_an_entry_that_is_removed_before_it_is_loaded_is_made_again(monkeypatch, fresh_cache):
    found = cache.entry
    calls = []

    def removed(key, make):
        path = found(key, make)
        if not calls:
            path.unlink()
        calls.append(path)
        return path

    monkeypatch.setattr(cache, "entry", removed)
    simple()
    assert len(calls) == 2 and entries(fresh_cache) == calls[1:]


def test_a_checksum_costs_little(fresh_cache):
    simple()
    (path,) = entries(fresh_cache)
    key = path.stem.removeprefix("loop-")
    times = []
    for _ in range(20):
        began = time.perf_counter()
        assert cache.is_whole(path, key)
        times.append(time.perf_counter() - began)
    assert min(times) < 1e-3


def test_every_part_of_the_key_counts(monkeypatch, tmp_path):
    def key(source="x"):
        compiler._identity.cache_clear()
        compiler._headers.cache_clear()
        return compiler.key_of(source, command)

    def program(text):
        path = tmp_path / "c++"
        path.write_text(f"#!/bin/sh\necho {text}\n")
        path.chmod(0o755)
        return (str(path),)

    headers = tmp_path / "include" / "bdtorch"
    headers.mkdir(parents=True)
    (headers / "loop.h").write_text("// one")
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("model name : A\nflags : avx2\nMHz : 1\n\nmodel name : B\n")
    monkeypatch.setattr(compiler, "include_dir", lambda: headers.parent)
    monkeypatch.setattr(compiler, "_CPUINFO", cpu)
    command = program("version 1")
    keys = [key()]
    assert key() == keys[0]

    def changed(what):
        keys.append(key())
        assert len(set(keys)) == len(keys), what

    keys.append(key("y"))
    command = program("version 2")
    changed("the compiler's version")
    os.utime(command[0], (1, 1))
    changed("the compiler's build")
    (tmp_path / "elsewhere").mkdir()
    command = (str(Path(command[0]).rename(tmp_path / "elsewhere" / "c++")),)
    changed("the compiler's path")
    command = (*command, "-m64")
    changed("the compiler's arguments")
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-g"))
    changed("flags")
    (headers / "loop.h").write_text("// two")
    changed("a header")
    (headers / "loop.h").rename(headers / "pool.h")
    changed("a header's name")
    (headers / "new.h").write_text("")
    changed("another header")
    cpu.write_text(cpu.read_text().replace("avx2", "avx2 avx512f"))
    changed("the processor's features")
    cpu.write_text(cpu.read_text().replace("name : A", "name : C"))
    changed("the processor's name")
    cpu.write_text(cpu.read_text().replace("MHz : 1", "MHz : 2"))
    assert key() == keys[-1]  # which shapes no code
    monkeypatch.setattr(compiler, "__version__", "0.0.0")
    changed("the version of this package")
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", "/elsewhere")
    changed("where the compiler looks")
    compiler._identity.cache_clear()
    compiler._headers.cache_clear()


def test_the_graph_is_part_of_the_key(fresh_cache):
    """Another constant, dtype, size, record or step is another loop; other values of tensors are not."""

    def made(value=0.5, dtype=torch.float32, size=9, every=1, dt=0.1, start=0.0):
        class Decay(bt.DynamicalSystem):
            def init_state(self, batch_shape=()):
                return torch.full((size,), start, dtype=dtype)

            def step(self, state, inputs, t, dt):
                return state * value + dt, state

        with torch.no_grad():
            record = {"v": bt.Record(lambda state, out: out, every)}
            bt.simulate(Decay((size,), dtype=dtype), dt=dt, duration=4 * dt, record=record, loop="native")
        return len(entries(fresh_cache))

    assert [made(), made(start=2.0)] == [1, 1]
    changes = ({"value": 0.25}, {"dtype": torch.float64}, {"size": 10}, {"every": 2}, {"dt": 0.2})
    assert [made(**change) for change in changes] == [2, 3, 4, 5, 6]


SCRIPT = """
    import torch, bdtorch as bt
    lif = bt.neurons.LIF(50, tau=10.0, v_rest=0.0, v_reset=0.0, v_th=1.0)
    sol = bt.simulate(lif, 2.0, dt=0.1, duration=5.0, loop="native", record={"v": bt.trace("v")})
    print(float(sol["v"].double().sum()))
"""


def compile_at_once(barrier, answers, log):
    """What a process of the next test does."""
    original = compiler._compile

    def counted(*arguments):
        with open(log, "a") as file:
            file.write("x")
        return original(*arguments)

    compiler._compile = counted
    barrier.wait(60)
    answers.put(simple().out.sum().item())


@pytest.mark.parametrize("locks", [True, False])
def test_eight_processes_want_the_same_loop_at_once(monkeypatch, fresh_cache, tmp_path_factory, locks):
    """One of them compiles it; without locks all do, and none sees half a file."""
    if not locks:
        monkeypatch.setattr(cache, "fcntl", None)
    log = tmp_path_factory.mktemp("log") / "compilations"
    context = multiprocessing.get_context("fork")  # which spares eight imports of torch
    barrier, answers = context.Barrier(8), context.Queue()
    processes = [context.Process(target=compile_at_once, args=(barrier, answers, log)) for _ in range(8)]
    for process in processes:
        process.start()
    results = [answers.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    assert len(set(results)) == 1
    assert len(log.read_text()) == 1 if locks else len(log.read_text()) >= 1
    (path,) = entries(fresh_cache)
    assert cache.is_whole(path, path.stem.removeprefix("loop-"))
    assert {x.name for x in fresh_cache.iterdir()} <= {".lock", path.name}


def compile_in_a_session_of_its_own(command):
    os.setsid()
    os.environ["CXX"] = command
    simple()


def test_a_cache_that_is_deleted_while_a_loop_compiles_is_made_again(monkeypatch, fresh_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiler")
    script, once = folder / "c++", folder / "once"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) exec g++ "$@";; esac\n'
        f'[ -e {once} ] || {{ touch {once}; rm -rf {fresh_cache}; }}\nexec g++ "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert simple().loop == "native"
    assert once.exists() and len(entries(fresh_cache)) == 1


def test_a_process_that_is_killed_while_it_compiles_leaves_no_poison(monkeypatch, fresh_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiler")
    slow, started = folder / "slow-c++", folder / "started"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *--version*) exec g++ "$@";; esac\ntouch {started}\nexec sleep 600\n')
    slow.chmod(0o755)
    process = multiprocessing.get_context("fork").Process(target=compile_in_a_session_of_its_own, args=(str(slow),))
    process.start()
    for _ in range(600):
        if started.exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)  # with the compiler
    process.join()
    (left,) = fresh_cache.glob(".build-*")
    assert not entries(fresh_cache)
    monkeypatch.setenv("CXX", "g++")
    simple()  # waits for no lock of a process that is gone
    assert left.exists() and len(entries(fresh_cache)) == 1
    os.utime(left, (1, 1))
    run(lambda x, t: ([x[0] * 0.25], x[0]), V, loop="native")
    assert not left.exists()  # long ago, and swept up


def test_the_entries_used_longest_ago_give_way(monkeypatch, fresh_cache):
    def made(factor):
        run(lambda x, t: ([x[0] * factor], x[0]), V, loop="native")
        return entries(fresh_cache)

    (first,) = made(0.5)
    (second,) = set(made(0.6)) - {first}
    size = first.stat().st_size
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    made(0.5)  # used again
    monkeypatch.setenv("BDTORCH_CACHE_MB", str(2.5 * size / 1e6))
    left = made(0.7)
    assert len(left) == 2 and first in left and second not in left
    monkeypatch.setenv("BDTORCH_CACHE_MB", "0")
    assert len(made(0.8)) == 1  # the newest stays, for it is about to be loaded
    monkeypatch.setenv("BDTORCH_CACHE_MB", "much")
    with pytest.raises(ValueError, match=r"\$BDTORCH_CACHE_MB: expected a number of megabytes, at least 0, got 'much'"):
        made(0.9)


def test_a_compiler_that_cannot_be_run(monkeypatch, fresh_cache):
    broken = fresh_cache / "c++"
    broken.write_bytes(b"\x7fELF no program")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(LoopError, match=r"cannot run the C\+\+ compiler"):
        simple()


def test_a_second_process_needs_neither_the_compiler_nor_slow_imports(fresh_cache):
    script = textwrap.dedent(SCRIPT) + "import sys; print(*sorted(sys.modules))"
    first, second = (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, env=os.environ, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert first == second
    assert not {"torch._dynamo", "torch._inductor", "sympy", "numexpr", "scipy"} & set(second.split())
