"""Random ops: published Philox vectors, mapping to numbers, invariances, seeds, transforms, errors."""

import ctypes
import itertools
import shutil
import subprocess
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.ops.random import _mix

Array: TypeAlias = np.ndarray[Any, Any]
Draw: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]

KEY = ops.make_key(20)
STEP = torch.tensor(7)

DRAWS: dict[str, Draw] = {
    "uniform32": lambda key, counter, n: ops.uniform(key, counter, n, dtype=torch.float32),
    "uniform64": lambda key, counter, n: ops.uniform(key, counter, n, dtype=torch.float64),
    "normal32": lambda key, counter, n: ops.normal(key, counter, n, dtype=torch.float32),
    "normal64": lambda key, counter, n: ops.normal(key, counter, n, dtype=torch.float64),
    "bernoulli32": lambda key, counter, n: ops.bernoulli(key, counter, torch.tensor(0.3), n),
    "bernoulli64": lambda key, counter, n: ops.bernoulli(key, counter, torch.tensor(0.3, dtype=torch.float64), n),
}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())


def philox_words(key: int, step: int, n_blocks: int) -> Array:
    """(n_blocks, 4) words by NumPy, written from the paper's definition."""
    block = np.arange(n_blocks, dtype=np.uint64)
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    c = [block & low, block >> shift, np.full_like(block, step % 2**32), np.full_like(block, (step >> 32) % 2**32)]
    k0, k1 = key % 2**32, (key >> 32) % 2**32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> shift) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> shift) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack(c, axis=1)


def expected_uniform(key: int, step: int, n: int, dtype: torch.dtype) -> Array:
    words = philox_words(key, step, n)
    if dtype == torch.float32:
        return ((words >> np.uint64(8)) / 2.0**24).reshape(-1)[:n]
    pairs = words.reshape(-1, 2)
    return (((pairs[:, 0] >> np.uint64(5)) * 2.0**26 + (pairs[:, 1] >> np.uint64(6))) / 2.0**53)[:n]


def expected_normal(key: int, step: int, n: int, dtype: torch.dtype) -> Array:
    """Box and Muller by NumPy's functions, in double precision from the uniforms as rounded."""
    words = philox_words(key, step, n)
    if dtype == torch.float32:
        pairs = words.reshape(-1, 2)
        u = (((pairs[:, 0] >> np.uint64(1)) + 0.5) / 2.0**31).astype(np.float32).astype(np.float64)
        turn = pairs[:, 1] / 2.0**32
    else:
        numbers = expected_uniform(key, step, 2 * n, dtype).reshape(-1, 2)
        u, turn = numbers[:, 0] + 2.0**-54, numbers[:, 1]
    radius, angle = np.sqrt(-2 * np.log(u)), 2 * np.pi * turn
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:n]


KERNELS = """
#include <bdtorch/random.h>
using namespace bdtorch;
extern "C" void philox_block(uint64_t key, uint64_t step, uint64_t block, uint32_t* word) {
  const PhiloxBlock result = philox(key, step, block);
  for (int i = 0; i < 4; ++i) word[i] = result.word[i];
}
#define EXPORT(name, T, fill) \\
  extern "C" void name(int64_t key, int64_t step, int64_t begin, int64_t end, T* out) { \\
    fill(key, step, begin, end, out); \\
  }
EXPORT(uniform32, float, uniform_fill)
EXPORT(normal32, float, normal_fill)
EXPORT(normal64, double, normal_fill)
extern "C" void bernoulli64(int64_t key, int64_t step, int64_t begin, int64_t end, bool* out) {
  bernoulli_fill(key, step, begin, end, 0.3, out);
}
"""


@pytest.fixture(scope="module", params=[[], ["-march=native"]], ids=["baseline", "native"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The header as a generated loop would compile it."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    directory = tmp_path_factory.mktemp("random")
    (directory / "kernels.cpp").write_text(KERNELS)
    flags = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
    command = [compiler, *flags, *request.param, f"-I{ops.include_dir()}", "kernels.cpp", "-o", "kernels.so"]
    subprocess.run(command, cwd=directory, check=True)
    return ctypes.CDLL(str(directory / "kernels.so"))


def fill(kernels: ctypes.CDLL, name: str, key: int, step: int, begin: int, end: int, out: Array) -> None:
    arguments = [ctypes.c_int64(value) for value in (key, step, begin, end)]
    getattr(kernels, name)(*arguments, ctypes.c_void_p(out.ctypes.data))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_answers(
    kernels: ctypes.CDLL, counter: list[int], key: list[int], expected: list[int]
) -> None:
    """The vectors that the authors publish with Random123."""
    words = np.zeros(4, np.uint32)
    pairs = (key, counter[2:], counter[:2])
    arguments = [ctypes.c_uint64(low | high << 32) for low, high in pairs]
    kernels.philox_block(*arguments, ctypes.c_void_p(words.ctypes.data))
    assert words.tolist() == expected


@pytest.mark.parametrize(("key", "step"), [(0, 0), (-1, 5), (2**62 + 12345, 2**40 + 3), (-(2**63), 2**63 - 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_follow_from_key_step_and_index(key: int, step: int, dtype: torch.dtype) -> None:
    n = 1003
    key_tensor, step_tensor = torch.tensor(key), torch.tensor(step)
    u = ops.uniform(key_tensor, step_tensor, n, dtype=dtype)
    assert u.dtype == dtype
    np.testing.assert_array_equal(u.numpy(), expected_uniform(key, step, n, dtype))
    z = ops.normal(key_tensor, step_tensor, n, dtype=dtype)
    assert z.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 2e-15
    np.testing.assert_allclose(z.numpy(), expected_normal(key, step, n, dtype), rtol=tolerance, atol=tolerance)
    p = torch.linspace(0, 1, n, dtype=dtype)
    assert torch.equal(ops.bernoulli(key_tensor, step_tensor, p, n), u < p)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("uniform32", np.float32), ("normal32", np.float32), ("normal64", np.float64), ("bernoulli64", np.bool_)],
)
def test_kernels_may_be_cut_anywhere(kernels: ctypes.CDLL, name: str, dtype: Any) -> None:
    n, key, step = 517, 99, 3
    whole = DRAWS[name](torch.tensor(key), torch.tensor(step), n).numpy()
    rng = np.random.default_rng(0)
    for n_cuts in (0, 1, 3, 40, 400):
        cuts = [0, *sorted(rng.integers(0, n, n_cuts, endpoint=True).tolist()), n]
        padded = np.zeros(n + 2, dtype)  # one element at either end that must stay as it is
        for begin, end in itertools.pairwise(cuts):
            fill(kernels, name, key, step, begin, end, padded[1:-1])
        assert padded[0] == 0 and padded[-1] == 0
        np.testing.assert_array_equal(padded[1:-1], whole)


@every_draw
def test_equal_for_any_number_of_threads_and_any_n(draw: Draw) -> None:
    n, threads = 100_003, torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = draw(KEY, STEP, n)
        torch.set_num_threads(3)
        assert torch.equal(draw(KEY, STEP, n), whole)
    finally:
        torch.set_num_threads(threads)
    for shorter in (0, 1, 2, 3, 4, 5, 63, 4099):
        assert torch.equal(draw(KEY, STEP, shorter), whole[:shorter])


@every_draw
def test_batch_equals_singles(draw: Draw) -> None:
    key = ops.make_key(3, (2, 3))
    counter = torch.arange(6).reshape(2, 3) * 1000
    batch = draw(key, counter, 37)
    assert batch.shape == (2, 3, 37)
    for index in itertools.product(range(2), range(3)):
        assert torch.equal(batch[index], draw(key[index], counter[index], 37))
    assert torch.equal(draw(key, STEP, 37)[1, 2], draw(key[1, 2], STEP, 37))
    assert torch.equal(draw(KEY, counter, 37)[1, 2], draw(KEY, counter[1, 2], 37))
    assert torch.equal(draw(key.mT, counter.mT, 37), batch.transpose(0, 1))
    assert draw(key[:0], counter[:0], 37).shape == (0, 3, 37)


def test_bernoulli_takes_a_probability_of_each_shape() -> None:
    key, n = ops.make_key(1, (4,)), 50
    u = ops.uniform(key, STEP, n, dtype=torch.float32)
    for p in (torch.tensor(0.25), torch.rand(n), torch.rand(4, n), torch.rand(n, 4).T, torch.tensor(0.25).expand(n)):
        assert torch.equal(ops.bernoulli(key, STEP, p, n), u < p)
    edge = torch.tensor([0.0, 1.0, -0.5, 1.5, torch.nan])
    never_always = torch.tensor([False, True, False, True, False])
    assert torch.equal(ops.bernoulli(key, STEP, edge, 5), never_always.expand(4, 5))


def test_fold_is_the_same_for_ever() -> None:
    """These values are in users' saved results: a change here is a breaking change."""
    assert ops.fold(1) == 1
    assert ops.fold(0, 0) == 5197578548964807871
    assert ops.fold(0, 1) == -2529857523242969672
    assert ops.fold(-1, 7) == 7613755759174143445
    assert ops.fold(2**62, -3) == -2934011279445804849
    assert ops.fold(0, "E") == 655719017434249843
    assert ops.fold(42, "noise", 3, "I") == 2643910013875293409
    assert ops.fold(ops.fold(9, "a"), 2, "b") == ops.fold(9, "a", 2, "b")


def test_mix_is_that_of_splitmix64() -> None:
    """The first outputs of SplitMix64 from seed 0."""
    outputs = [_mix(i * 0x9E3779B97F4A7C15 % 2**64) for i in (1, 2, 3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_folds_differ() -> None:
    seeds = [ops.fold(s, *words) for s in range(50) for words in itertools.product(("E", "I", "e"), range(50))]
    seeds += [ops.fold(s, i) for s in range(100) for i in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
    assert ops.fold(0, "a", "b") != ops.fold(0, "b", "a") != ops.fold(0, "ab")


def test_keys_of_a_batch_are_folds() -> None:
    key = ops.make_key(-17, (3, 4))
    assert key.dtype == torch.int64 and key.shape == (3, 4)
    assert key.flatten().tolist() == [ops.fold(-17, b) for b in range(12)]
    assert ops.make_key(-17).shape == () and int(ops.make_key(-17)) == ops.fold(-17, 0)
    assert torch.equal(ops.make_key(-17, (5,)), key.flatten()[:5])
    assert ops.make_key(0, (0,)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.uniform(KEY.int(), STEP, 3, dtype=torch.float32), TypeError, r"uniform\(key=.*int64.*int32"),
        (lambda: ops.normal(KEY, STEP.float(), 3, dtype=torch.float32), TypeError, r"normal\(counter=.*int64"),
        (lambda: ops.normal(KEY, STEP, 3, dtype=torch.float16), TypeError, r"normal\(dtype=.*float16"),
        (lambda: ops.uniform(KEY, STEP, -1, dtype=torch.float32), ValueError, r"uniform\(n=.*nonnegative.*-1"),
        (
            lambda: ops.uniform(ops.make_key(0, (3,)), torch.arange(4), 2, dtype=torch.float32),
            ValueError,
            r"uniform\(counter=.*\(3,\).*\(4,\)",
        ),
        (lambda: ops.bernoulli(KEY, STEP, torch.tensor(1), 3), TypeError, r"bernoulli\(p=.*int64"),
        (lambda: ops.bernoulli(KEY, STEP, torch.rand(4), 3), ValueError, r"bernoulli\(p=.*\(3,\).*\(4,\)"),
        (lambda: ops.uniform(KEY, STEP.to("meta"), 3, dtype=torch.float32), ValueError, r"\(counter=.*cpu.*meta"),
        (lambda: ops.bernoulli(KEY, STEP, torch.rand(3).to("meta"), 3), ValueError, r"bernoulli\(p=.*cpu.*meta"),
        (lambda: ops.fold(cast(int, 1.0)), TypeError, r"fold\(seed=.*integer.*1\.0"),
        (lambda: ops.fold(1, cast(int, 2.5)), TypeError, r"fold\(words=.*2\.5"),
        (lambda: ops.fold(2**63), ValueError, r"fold\(seed=.*2\*\*63"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_ops_refuse_what_bypasses_the_doors() -> None:
    """Graphs call the ops without the doors: a kernel must still not read outside its arrays."""
    key, op = ops.make_key(0, (3,)), torch.ops.bdtorch
    with pytest.raises(RuntimeError, match="counter"):
        op.random_uniform(key, torch.arange(4), 5, torch.float32)
    with pytest.raises(RuntimeError, match="nonnegative"):
        op.random_normal(key, STEP, -5, torch.float32)
    with pytest.raises(RuntimeError, match="p="):
        op.random_bernoulli(key, STEP, torch.rand(2, 5), 5)
    with pytest.raises(RuntimeError, match="int64"):
        op.random_uniform(key.double(), STEP, 5, torch.float32)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_opcheck(batch: tuple[int, ...]) -> None:
    key = ops.make_key(0, batch)
    for dtype in (torch.float32, torch.float64):
        torch.library.opcheck(torch.ops.bdtorch.random_uniform.default, (key, STEP, 9, dtype))
        torch.library.opcheck(torch.ops.bdtorch.random_normal.default, (key, STEP, 9, dtype))
        for p in (torch.tensor(0.5, dtype=dtype), torch.rand(9, dtype=dtype, requires_grad=True)):
            torch.library.opcheck(torch.ops.bdtorch.random_bernoulli.default, (key, STEP, p, 9))


def test_no_gradient_to_the_probability() -> None:
    p = torch.full((5,), 0.5, requires_grad=True)
    assert not ops.bernoulli(KEY, STEP, p, 5).requires_grad


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_graph_break(backend: str) -> None:
    def step(key: Tensor, counter: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        noise = ops.normal(key, counter, 33, dtype=torch.float32) + ops.uniform(key, counter, 33, dtype=torch.float32)
        return noise, ops.bernoulli(key, counter, rate * 0.1, 33)

    key, rate = ops.make_key(0, (2,)), torch.rand(33)
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for counter in (torch.tensor(0), torch.tensor(1)):
        for actual, expected in zip(compiled(key, counter, rate), step(key, counter, rate), strict=True):
            assert torch.equal(actual, expected)


@every_draw
@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0), (1, None), (1, 0)])
def test_vmap_equals_loop(draw: Draw, in_dims: tuple[int | None, int | None]) -> None:
    key = ops.make_key(0, (4, 4)) if in_dims[0] == 1 else ops.make_key(0, (4,) if in_dims[0] == 0 else ())
    counter = torch.arange(4) if in_dims[1] == 0 else STEP
    mapped = torch.func.vmap(lambda k, c: draw(k, c, 11), in_dims=in_dims)(key, counter)
    for b in range(4):
        single_key = key if in_dims[0] is None else key.select(in_dims[0], b)
        single_counter = counter if in_dims[1] is None else counter[b]
        assert torch.equal(mapped[b], draw(single_key, single_counter, 11))


def test_vmap_over_probabilities() -> None:
    for key in (KEY, ops.make_key(0, (2,))):
        for p in (torch.rand(5), torch.rand(5, 7), torch.rand(5, *key.shape, 7)):
            mapped = torch.func.vmap(lambda q, key=key: ops.bernoulli(key, STEP, q, 7))(p)
            loop = torch.stack([ops.bernoulli(key, STEP, q, 7) for q in p])
            assert torch.equal(mapped, loop)
    nested = torch.func.vmap(torch.func.vmap(lambda k: ops.uniform(k, STEP, 3, dtype=torch.float32)))
    keys = ops.make_key(0, (2, 3))
    assert torch.equal(nested(keys), ops.uniform(keys, STEP, 3, dtype=torch.float32))
