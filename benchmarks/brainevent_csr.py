"""brainevent's event-driven CSR product on the CPU, in an environment of its own, for `operators.py`.

    python3 -m venv .venv-brainevent && .venv-brainevent/bin/pip install brainevent numba
    python benchmarks/operators.py --brainevent-python .venv-brainevent/bin/python

It reads a matrix from a file, prints its product with the spikes, and then, for every line of input, the median time of
twenty calls in microseconds: the other side takes its turns between them.
"""

import statistics
import sys
import time

import brainevent
import jax
import numpy as np


def main() -> None:
    with np.load(sys.argv[1]) as file:
        weights, indices, indptr, spikes = (jax.numpy.asarray(file[name]) for name in file.files)
    shape = (len(indptr) - 1, len(spikes))
    matrix = brainevent.CSR((weights, indices, indptr), shape=shape)
    product = jax.jit(lambda events: brainevent.BinaryArray(events) @ matrix)
    np.save(sys.argv[2], np.asarray(product(spikes)))
    print(brainevent.__version__, flush=True)
    for _ in sys.stdin:
        samples = []
        for _ in range(20):
            start = time.perf_counter()
            product(spikes).block_until_ready()
            samples.append(time.perf_counter() - start)
        print(statistics.median(samples) * 1e6, flush=True)


if __name__ == "__main__":
    main()
