"""csrc/include/bdtorch/math.h: accuracy, special values, equal bits on every target, vectorisation."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest

from bdtorch.ops import include_dir

Array: TypeAlias = np.ndarray[Any, Any]
Library: TypeAlias = Callable[[str, Array], Array]

COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++")

IEEE_FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Werror"]
TARGETS = {"baseline": [], "fma": ["-march=haswell"], "native": ["-march=native"]}

SOURCE = """
#include <bdtorch/math.h>
namespace {
template <class T> T sin2pi(T u) { return bdtorch::sincos2pi(u).sin; }
template <class T> T cos2pi(T u) { return bdtorch::sincos2pi(u).cos; }
using namespace bdtorch;
}
#define EXPORT(function)                                                                                         \\
  extern "C" void function##_float32(const float* x, float* y, long n) {                                        \\
    for (long i = 0; i < n; ++i) y[i] = function(x[i]);                                                         \\
  }                                                                                                             \\
  extern "C" void function##_float64(const double* x, double* y, long n) {                                      \\
    for (long i = 0; i < n; ++i) y[i] = function(x[i]);                                                         \\
  }
"""
MEMBRANE_LOOP = """
#include <bdtorch/math.h>
using T = DTYPE;
void advance(T* __restrict v, T* __restrict m, const T* __restrict drive, T dt, int n) {
  for (int i = 0; i < n; ++i) {  // THE LOOP
    const T x = T(0.25) * (v[i] + T(48));
    const T alpha = T(1.28) * x / bdtorch::expm1(x);
    const T steady = bdtorch::sigmoid(v[i] / T(9)) + bdtorch::tanh(drive[i]);
    const T decay = bdtorch::exp(-dt * (alpha + bdtorch::log(drive[i])));
    m[i] = m[i] > steady ? steady + (m[i] - steady) * decay : steady;
    v[i] = v[i] > T(20) ? T(-60) : v[i] + dt * bdtorch::sin(m[i]) * bdtorch::sqrt(bdtorch::log1p(steady));
  }
}
"""


def compile_cpp(directory: Path, source: str, flags: list[str]) -> subprocess.CompletedProcess[str]:
    (directory / "source.cpp").write_text(source)
    command = [str(COMPILER), *flags, f"-I{include_dir()}", "source.cpp", "-o", "out.so"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True)


def wide(dtype: Any) -> Any:
    return np.float64 if dtype == np.float32 else np.longdouble


def reference_sigmoid(x: Array) -> Array:
    y: Array = 1 / (1 + np.exp(-x))
    return y


def finite_expm1(x: Array) -> Array:
    """``e^x - 1`` with the range of the format that is tested, which is the one below the format of ``x``."""
    y: Array = np.expm1(x)
    return np.where(y > np.finfo(np.float32 if x.dtype == np.float64 else np.float64).max, np.inf, y)


def reference_exprel(x: Array) -> Array:
    return np.where(x == 0, 1, finite_expm1(x) / np.where(x == 0, 1, x))


def reference_linoid(x: Array) -> Array:
    return np.where(x == 0, 1, x / np.where(x == 0, 1, finite_expm1(x)))


def reference_sincos2pi(u: Array) -> tuple[Array, Array]:
    quadrant = np.round(4 * u)
    angle = (u - quadrant / 4) * (8 * np.arctan(u.dtype.type(1)))
    sin, cos = np.sin(angle), np.cos(angle)
    number = quadrant.astype(np.int64) % 4
    return np.choose(number, [sin, cos, -sin, -cos]), np.choose(number, [cos, -sin, -cos, sin])


class Function(NamedTuple):
    """What a function should give, how far off it may be, and where something happens in each format."""

    reference: Callable[[Array], Array]
    max_ulp: float
    range32: tuple[float, float]
    range64: tuple[float, float]


FUNCTIONS = {
    "exp": Function(np.exp, 1.0, (-106, 92), (-750, 715)),
    "expm1": Function(np.expm1, 2.0, (-30, 92), (-50, 715)),
    "exprel": Function(reference_exprel, 2.5, (-30, 92), (-50, 715)),
    "linoid": Function(reference_linoid, 2.5, (-30, 92), (-50, 715)),
    "log": Function(np.log, 1.0, (0, 4), (0, 4)),
    "log1p": Function(np.log1p, 1.0, (-1, 4), (-1, 4)),
    "tanh": Function(np.tanh, 2.5, (-12, 12), (-24, 24)),
    "sigmoid": Function(reference_sigmoid, 2.0, (-106, 20), (-750, 40)),
    "sin": Function(np.sin, 1.0, (-1e3, 1e3), (-1e3, 1e3)),
    "cos": Function(np.cos, 1.0, (-1e3, 1e3), (-1e3, 1e3)),
    "sin2pi": Function(lambda u: reference_sincos2pi(u)[0], 2.0, (-1, 1), (-1, 1)),
    "cos2pi": Function(lambda u: reference_sincos2pi(u)[1], 2.0, (-1, 1), (-1, 1)),
}
DTYPES = [np.float32, np.float64]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Library]:
    """The functions compiled for each target that this processor can run."""
    cpu_flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    source = SOURCE + "".join(f"EXPORT({name})\n" for name in FUNCTIONS)

    def load(target: str) -> Library:
        directory = tmp_path_factory.mktemp(target)
        result = compile_cpp(directory, source, [*IEEE_FLAGS, *TARGETS[target], "-fPIC", "-shared"])
        assert result.returncode == 0, result.stderr
        library = ctypes.CDLL(str(directory / "out.so"))

        def call(name: str, x: Array) -> Array:
            x, y = np.ascontiguousarray(x), np.empty_like(x)
            function = getattr(library, f"{name}_{x.dtype.name}")
            function(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_long(x.size))
            return y

        return call

    return {t: load(t) for t in TARGETS if t != "fma" or (" avx2 " in cpu_flags and " fma " in cpu_flags)}


def sample(name: str, dtype: Any, n: int = 400_000) -> Array:
    """Random bit patterns, numbers from the range of interest, and numbers of every small magnitude."""
    rng = np.random.default_rng(sum(name.encode()))
    unsigned = np.uint32 if dtype == np.float32 else np.uint64
    patterns = rng.integers(0, np.iinfo(unsigned).max, size=n, dtype=unsigned, endpoint=True).view(dtype)
    low, high = FUNCTIONS[name].range32 if dtype == np.float32 else FUNCTIONS[name].range64
    parts = [patterns, rng.uniform(low, high, n), rng.choice([-1, 1], n) * 10 ** rng.uniform(-12, 0.5, n)]
    parts.append(rng.uniform(-1, 1, n))  # dense where models live, and where quotients of sums are least accurate
    if name in ("sin", "cos"):
        near_zeros = np.arange(200_000) * (np.pi / 2)
        parts += [near_zeros, rng.uniform(-(2.0**28), 2.0**28, n)]
    return within_domain(name, np.concatenate([part.astype(dtype) for part in parts]))


def within_domain(name: str, x: Array) -> Array:
    domain = {"sin": 2.0**28, "cos": 2.0**28, "sin2pi": 2.0**20, "cos2pi": 2.0**20}
    return x[np.abs(x) <= domain[name]] if name in domain else x


def errors_in_ulp(y: Array, exact: Array) -> Array:
    """|y - exact| in spacings of y's format at exact; equal infinities and NaN count as 0."""
    info = np.finfo(y.dtype)
    exponent = np.maximum(np.frexp(np.abs(exact))[1] - 1, info.minexp)
    with np.errstate(all="ignore"):
        error = np.abs(y.astype(exact.dtype) - exact) / np.ldexp(exact.dtype.type(1), exponent - info.nmant)
        same = (y == exact.astype(y.dtype)) | (np.isnan(y) & np.isnan(exact))
    return np.where(same & ~np.isfinite(y), 0, np.where(np.isnan(error), np.inf, error))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_is_below_the_documented_bound(libraries: dict[str, Library], name: str, dtype: Any) -> None:
    if np.finfo(wide(dtype)).nmant < np.finfo(dtype).nmant + 10:
        pytest.skip("no wider format on this machine")
    x = sample(name, dtype)
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name].reference(x.astype(wide(dtype)))
    error = errors_in_ulp(libraries["native"](name, x), exact)
    worst = np.argmax(error)
    assert error[worst] <= FUNCTIONS[name].max_ulp, f"{name}({x[worst]!r}): {error[worst]} ulp"


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_sweep_of_single_precision(libraries: dict[str, Library], name: str) -> None:
    """One float of 509, over all bit patterns: every exponent, subnormal and huge numbers, infinities and NaN."""
    worst = 0.0
    for first in range(0, 2**32, 509 << 20):  # so that a part fits the cache
        patterns = np.arange(first, min(first + (509 << 20), 2**32), 509, dtype=np.uint64).astype(np.uint32)
        x = within_domain(name, patterns.view(np.float32))
        with np.errstate(all="ignore"):
            exact = FUNCTIONS[name].reference(x.astype(np.float64))
        y = libraries["native"](name, x)
        assert np.array_equal(np.isnan(y), np.isnan(exact))
        worst = max(worst, float(errors_in_ulp(y, exact).max(initial=0.0)))
    assert 0.0 < worst <= FUNCTIONS[name].max_ulp


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_targets_agree_to_the_bit(libraries: dict[str, Library], name: str, dtype: Any) -> None:
    x = sample(name, dtype, 50_000)
    x = x[~np.isnan(x)]  # payloads of NaN are free
    expected = libraries["baseline"](name, x)
    for target, call in libraries.items():
        y = call(name, x)
        both_nan = np.isnan(y) & np.isnan(expected)
        unsigned = np.uint32 if dtype == np.float32 else np.uint64
        assert np.array_equal(y.view(unsigned)[~both_nan], expected.view(unsigned)[~both_nan]), target
        assert np.array_equal(np.isnan(y), np.isnan(expected)), target
        one_by_one = np.concatenate([call(name, x[i : i + 1]) for i in range(500)])
        assert np.array_equal(one_by_one, y[:500], equal_nan=True), "scalar and vector code differ"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "expm1", "exprel", "linoid", "log", "log1p", "tanh", "sigmoid", "sin", "cos"])
def test_special_values(libraries: dict[str, Library], name: str, dtype: Any) -> None:
    info = np.finfo(dtype)
    largest = 1000.0 if name in ("sin", "cos") else info.max
    tiny = [info.tiny, info.smallest_subnormal, -info.smallest_subnormal]
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, largest, -largest, *tiny], dtype)
    with np.errstate(all="ignore"):
        expected = FUNCTIONS[name].reference(x.astype(wide(dtype))).astype(dtype)
    y = libraries["native"](name, x)
    np.testing.assert_allclose(y, expected, rtol=4 * info.eps, atol=0)
    finite = np.isfinite(expected)
    assert np.array_equal(np.signbit(y)[finite], np.signbit(expected)[finite])


@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_of_the_range(libraries: dict[str, Library], dtype: Any) -> None:
    call, info = libraries["native"], np.finfo(dtype)
    overflow = np.log(wide(dtype)(info.max))
    below, above = np.nextafter(dtype(overflow), dtype(0)), np.nextafter(dtype(overflow), dtype(np.inf))
    for name in ("exp", "expm1"):
        y = call(name, np.array([below, np.nextafter(above, dtype(np.inf))]))
        assert np.isfinite(y[0]) and np.isposinf(y[1])
    subnormal = call("exp", np.array([np.log(wide(dtype)(info.tiny)) - 3], dtype))
    assert 0 < subnormal[0] < info.tiny
    beyond = np.array([2.0**28, np.nextafter(dtype(2.0**28), dtype(np.inf)), -np.inf], dtype)
    for name in ("sin", "cos"):
        assert np.array_equal(np.isnan(call(name, beyond)), [False, True, True])


@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_functions_are_odd_and_saturating_ones_bounded(libraries: dict[str, Library], dtype: Any) -> None:
    call, x = libraries["native"], np.linspace(-800, 800, 200_001).astype(dtype)
    for name in ("tanh", "sin"):
        assert np.array_equal(call(name, -x), -call(name, x))
    assert np.all(np.abs(call("tanh", x)) <= 1)
    assert np.all((call("sigmoid", x) >= 0) & (call("sigmoid", x) <= 1))
    assert np.all(call("expm1", x) >= -1)


@pytest.mark.parametrize("dtype", ["float", "double"])
def test_vectorises_inside_a_larger_loop(tmp_path: Path, dtype: str) -> None:
    flags = [*IEEE_FLAGS, "-march=haswell", f"-DDTYPE={dtype}", "-c", "-fopt-info-vec-optimized"]
    result = compile_cpp(tmp_path, MEMBRANE_LOOP, flags)
    assert result.returncode == 0, result.stderr
    if "clang" in subprocess.run([str(COMPILER), "--version"], capture_output=True, text=True).stdout:
        pytest.skip("reads the messages of gcc")
    line = next(i for i, text in enumerate(MEMBRANE_LOOP.splitlines(), 1) if "THE LOOP" in text)
    vectorised = [m for m in result.stderr.splitlines() if f"source.cpp:{line}:" in m and "loop vectorized" in m]
    assert any("32 byte vectors" in message for message in vectorised), result.stderr


@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-ffinite-math-only"])
def test_refuses_value_changing_optimisations(tmp_path: Path, flag: str) -> None:
    result = compile_cpp(tmp_path, "#include <bdtorch/math.h>\n", ["-std=c++17", flag, "-c"])
    assert result.returncode != 0 and "needs IEEE arithmetic" in result.stderr


def test_header_compiles_as_cpp17_without_heavy_headers(tmp_path: Path) -> None:
    source = "#include <bdtorch/random.h>\nint main() { return 0; }\n"
    (tmp_path / "main.cpp").write_text(source)
    command = [str(COMPILER), "-std=c++17", "-M", f"-I{include_dir()}", str(tmp_path / "main.cpp")]
    included = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for heavy in ("/vector", "/algorithm", "/string ", "/functional", "/cmath", "/iostream"):
        assert heavy not in included
