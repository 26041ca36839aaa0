"""Build of the compiled libraries: ``bdtorch/_C.so`` and, where nvcc is found, ``bdtorch/_C_cuda<major>.so``.

    pip install . --no-build-isolation        # needs setuptools and ninja in the environment
    pip install .                             # isolated: pip fetches setuptools and ninja itself
    pip install -e . --no-build-isolation     # development: run it again after a change in csrc/

Either way torch >= 2.13 must already be installed in the environment: its headers and libraries are read, it is not
imported. The libraries use LibTorch's stable ABI and no Python symbols, hence one ``py3-none`` wheel per platform.

Environment:
    BDTORCH_CUDA        auto (default: if a CUDA toolkit is found) | 0 | 1
    BDTORCH_CUDA_ARCHS  compute capabilities, default "80;90;90+PTX"
    BDTORCH_SIM         1 builds nothing but _C_sim.so, the CUDA sources executed on the CPU (for the tests)
    BDTORCH_TORCH_DIR   the torch package to compile against, if it is not the environment's own
    CXX, CUDA_HOME, MAX_JOBS, CXXFLAGS
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
CSRC = ROOT / "csrc"
SIMULATOR = ROOT / "tests" / "cuda" / "simulator"
TORCH_MINIMUM = (2, 13)


def fail(message: str) -> NoReturn:
    """Ends the build with a message that stands out of pip's output."""
    bar = "=" * 100
    raise SystemExit(f"\n{bar}\nbdtorch: {message}\n{bar}\n")


def find_torch() -> Path:
    """The torch package to compile against: $BDTORCH_TORCH_DIR, an importable one, or the environment's.

    An isolated build hides the environment's packages from import, but not from sysconfig.
    """
    if "BDTORCH_TORCH_DIR" in os.environ:
        candidates = [Path(os.environ["BDTORCH_TORCH_DIR"])]
    else:
        spec = importlib.util.find_spec("torch")
        candidates = [Path(spec.origin).parent] if spec and spec.origin else []
        candidates += [Path(sysconfig.get_path(name)) / "torch" for name in ("platlib", "purelib")]
    for directory in candidates:
        version_file = directory / "version.py"
        if version_file.exists():
            break
    else:
        fail(
            f"no torch in {', '.join(map(str, candidates))}.\nInstall torch >= 2.13 first (https://pytorch.org), "
            "then install bdtorch; or set BDTORCH_TORCH_DIR to a torch package."
        )
    version = re.search(r"__version__ = '((\d+)\.(\d+)[^']*)'", version_file.read_text())
    if version is None or (int(version[2]), int(version[3])) < TORCH_MINIMUM:
        fail(f"torch >= 2.13 is needed, {directory} is {version[1] if version else 'of unknown version'}.")
    return directory


def find_compiler() -> list[str]:
    """The C++ compiler as a command: $CXX, or the first of g++, clang++, c++."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for name in names:
        command = shlex.split(name)
        if shutil.which(command[0]):
            expect_recent(command)
            return command
    fail(
        f"no C++ compiler found (looked for {', '.join(names)}).\n"
        "Debian, Ubuntu: apt install g++    Fedora: dnf install gcc-c++    conda: conda install cxx-compiler"
    )


def expect_recent(compiler: list[str]) -> None:
    """Ends the build where the compiler does not know C++20, which torch's headers ask for."""
    probe = "#include <concepts>\n#include <span>\nstatic_assert(std::integral<int>);\n"
    command = [*compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    try:
        done = subprocess.run(command, input=probe, capture_output=True, text=True, check=False)
    except OSError as error:
        fail(f"the C++ compiler {compiler[0]} cannot be run: {error}")
    if done.returncode:
        fail(
            f"{shlex.join(compiler)} does not compile C++20: g++ 11 or clang++ 13 is needed, or a newer one; set CXX.\n"
            + done.stderr[-1000:]
        )


@dataclass(frozen=True)
class CudaToolkit:
    """A compiler, the directory of its runtime library, and the major version of both."""

    nvcc: Path
    library_dir: Path
    major: int


def find_cuda() -> CudaToolkit | None:
    """The CUDA toolkit to compile with (None: CPU only), as $BDTORCH_CUDA wishes."""
    wish = os.environ.get("BDTORCH_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        fail(f"BDTORCH_CUDA: expected auto, 0 or 1, got {wish!r}.")
    if wish == "0":
        return None
    on_path = shutil.which("nvcc")
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    if not homes:
        homes = [Path("/usr/local/cuda")] + ([Path(on_path).resolve().parents[1]] if on_path else [])
    for home in homes:
        nvcc = home / "bin" / "nvcc"
        runtime = [home / lib for lib in ("lib64", "lib") if (home / lib / "libcudart_static.a").exists()]
        if nvcc.exists() and (home / "include" / "cuda_runtime.h").exists() and runtime:
            release = re.search(r"release (\d+)", subprocess.check_output([nvcc, "--version"], text=True))
            if release:
                return CudaToolkit(nvcc, runtime[0], int(release[1]))
    if wish == "1":
        fail(
            "BDTORCH_CUDA=1, but no CUDA toolkit with nvcc, cuda_runtime.h and libcudart_static.a is in "
            f"{', '.join(map(str, homes))}.\n"
            "Set CUDA_HOME, or BDTORCH_CUDA=0 for a build without CUDA."
        )
    return None


def architecture_flags() -> list[str]:
    """The -gencode flags of nvcc for $BDTORCH_CUDA_ARCHS."""
    flags = []
    for architecture in os.environ.get("BDTORCH_CUDA_ARCHS", "80;90;90+PTX").split(";"):
        match = re.fullmatch(r"(\d+[af]?)(\+PTX)?", architecture.strip())
        if match is None:
            fail(f'BDTORCH_CUDA_ARCHS: expected a list such as "80;90;90+PTX", got {architecture!r} in it.')
        code = "compute" if match[2] else "sm"
        flags.append(f"-gencode=arch=compute_{match[1]},code={code}_{match[1]}")
    return flags


class NinjaFile:
    """The text of a build.ninja, with one compile edge per source and one link edge per library."""

    def __init__(self, build_dir: Path, torch_dir: Path, compiler: list[str]) -> None:
        major, minor = TORCH_MINIMUM
        self.build_dir = build_dir
        self.compiler = shlex.join(compiler)
        self.host_compiler = [word for word in compiler if not word.startswith("-")][-1]  # without ccache or arguments
        self.link_flags = [f"-L{torch_dir / 'lib'}", "-ltorch_cpu", "-lc10"]
        # C++20 is what torch's headers ask for; the kernels in csrc/include keep to C++17.
        self.common_flags = [
            "-std=c++20",
            "-O3",
            f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000ULL",
            f"-I{CSRC}",
            f"-I{CSRC / 'include'}",
            "-isystem",
            f"{torch_dir / 'include'}",
        ]
        # No contraction into fma: the same numbers on every CPU and on the GPU. Without errno and traps, which nobody
        # reads, square roots and selections vectorise; values stay those of IEEE.
        self.host_flags = ["-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
        self.host_flags += ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
        self.host_flags += shlex.split(os.environ.get("CXXFLAGS", ""))
        self.lines = [
            "ninja_required_version = 1.5",
            "rule compile",
            "  command = $compiler $flags -MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "rule link",
            f"  command = {self.compiler} -shared $in $flags -o $out",
        ]

    @staticmethod
    def escape(path: Path | str) -> str:
        return re.sub(r"([$ :])", r"$\1", str(path))

    def compile(self, library: str, source: Path, *, compiler: str, flags: list[str]) -> str:
        target = self.escape(self.build_dir / library / f"{source.parent.name}_{source.stem}.o")
        command = " ".join(map(shlex.quote, self.common_flags + flags)).replace("$", "$$")
        self.lines += [
            f"build {target}: compile {self.escape(source)}",
            f"  compiler = {compiler}",
            f"  flags = {command}",
        ]
        return target

    def link(self, library: str, objects: list[str], extra_flags: list[str] | None = None) -> Path:
        target = self.build_dir / f"{library}.so"
        flags = " ".join(map(shlex.quote, self.link_flags + (extra_flags or []))).replace("$", "$$")
        self.lines += [f"build {self.escape(target)}: link {' '.join(objects)}", f"  flags = {flags}"]
        return target

    def cpu_library(self, name: str) -> Path:
        """Schemas and CPU kernels."""
        sources = [CSRC / "library.cpp", *sorted((CSRC / "cpu").glob("*.cpp"))]
        return self.link(name, [self.compile(name, s, compiler=self.compiler, flags=self.host_flags) for s in sources])

    def cuda_library(self, name: str, cuda: CudaToolkit) -> Path:
        """CUDA kernels of the same schemas, with the CUDA runtime linked in statically."""
        host = ",".join(flag for flag in self.host_flags if not flag.startswith("-W"))
        flags = ["-fmad=false", "-Xcompiler", host, "-ccbin", self.host_compiler, *architecture_flags()]
        sources = sorted((CSRC / "cuda").glob("*.cu"))
        objects = [self.compile(name, s, compiler=shlex.quote(str(cuda.nvcc)), flags=flags) for s in sources]
        return self.link(name, objects, [f"-L{cuda.library_dir}", "-lcudart_static", "-lrt", "-lpthread", "-ldl"])

    def simulator_library(self, name: str) -> Path:
        """The CUDA sources compiled for the host, registered for CPU tensors in a namespace of their own."""
        flags = [*self.host_flags, "-DBDTORCH_SIMULATE_CUDA", "-DBDTORCH_NAMESPACE=bdtorch_sim", f"-I{SIMULATOR}"]
        sources = [CSRC / "library.cpp", *sorted(SIMULATOR.glob("*.cpp"))]
        objects = [self.compile(name, s, compiler=self.compiler, flags=flags) for s in sources]
        for source in sorted((CSRC / "cuda").glob("*.cu")):
            objects.append(self.compile(name, source, compiler=self.compiler, flags=[*flags, "-x", "c++"]))
        return self.link(name, objects)

    def run(self) -> None:
        """Writes the file and lets ninja bring every target up to date."""
        ninja = shutil.which("ninja", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
        if ninja is None:
            fail("ninja was not found. Install it (pip install ninja), or build without --no-build-isolation.")
        import fcntl  # not on Windows, which is refused with a message

        self.build_dir.mkdir(parents=True, exist_ok=True)
        jobs = [f"-j{os.environ['MAX_JOBS']}"] if os.environ.get("MAX_JOBS") else []
        with open(self.build_dir / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two builds at once wait for one another
            (self.build_dir / "build.ninja").write_text("\n".join(self.lines) + "\n")
            if subprocess.run([ninja, "-C", str(self.build_dir), *jobs], check=False).returncode:
                fail("compilation failed; the compiler's messages are above.")


def replace_file(source: Path, target: Path) -> None:
    """Copies by moving a new file into place: overwriting a library that a running process has mapped crashes it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".new")
    shutil.copyfile(source, fresh)
    fresh.replace(target)


class BuildLibraries(build_ext):
    """Builds all libraries with one incremental, parallel run of ninja; setuptools only says where they go."""

    def build_extensions(self) -> None:
        torch_dir, compiler = find_torch(), find_compiler()
        ninja = NinjaFile(ROOT / "build" / ("simulator" if SIMULATE else "ninja"), torch_dir, compiler)
        built: dict[str, Path] = {}
        for extension in self.extensions:
            name = extension.name.rpartition(".")[2]
            if name == "_C":
                built[extension.name] = ninja.cpu_library(name)
            elif name == "_C_sim":
                built[extension.name] = ninja.simulator_library(name)
            else:
                assert CUDA is not None
                built[extension.name] = ninja.cuda_library(name, CUDA)
        print(f"bdtorch: {shlex.join(compiler)}, torch {torch_dir}, CUDA {CUDA.nvcc if CUDA else 'off'}", flush=True)
        ninja.run()
        for extension_name, library in built.items():
            replace_file(library, Path(self.get_ext_fullpath(extension_name)))

    def copy_extensions_to_source(self) -> None:
        """The last step of an editable install."""
        for built, in_source_tree in self.get_output_mapping().items():
            replace_file(Path(built), Path(in_source_tree))

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"  # no Python version in it: no Python symbols

    def get_source_files(self) -> list[str]:
        """What a source distribution must contain besides the package."""
        return [str(path.relative_to(ROOT)) for path in sorted(CSRC.rglob("*")) if path.is_file()]


class BuildPackage(build_py):
    """Adds the kernel headers to the wheel: generated time loops include them at run time."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            headers = CSRC / "include" / "bdtorch"
            shutil.copytree(headers, Path(self.build_lib) / "bdtorch" / "include" / "bdtorch", dirs_exist_ok=True)


class Wheel(bdist_wheel):
    """One wheel per platform, for every Python: the libraries have no Python symbols."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


if sys.platform == "win32":
    fail("Windows is not supported; use the Windows Subsystem for Linux.")

SIMULATE = os.environ.get("BDTORCH_SIM") == "1"
CUDA = None if SIMULATE else find_cuda()
libraries = ["bdtorch._C_sim"] if SIMULATE else ["bdtorch._C"]
if CUDA is not None:
    libraries.append(f"bdtorch._C_cuda{CUDA.major}")

setup(
    ext_modules=[Extension(name, sources=[]) for name in libraries],
    cmdclass={"build_ext": BuildLibraries, "build_py": BuildPackage, "bdist_wheel": Wheel},
)
