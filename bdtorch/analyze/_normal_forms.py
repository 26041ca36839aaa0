"""Test functions and normal form coefficients of equilibria.

Source: Kuznetsov (2004), Elements of Applied Bifurcation Theory, doi:10.1007/978-1-4757-3978-7, sections 5.4, 8.7, 10.2.
"""

from __future__ import annotations

import numpy as np

from bdtorch.analyze._evaluate import Array, Evaluator


def hopf_test(eigenvalues: Array) -> float:
    """Changes sign where two eigenvalues sum to zero, and is then their sum, up to its sign."""
    if len(eigenvalues) < 2:
        return 1.0
    i, j = np.triu_indices(len(eigenvalues), 1)
    sums = eigenvalues[i] + eigenvalues[j]
    sizes = np.abs(sums)
    if not sizes.all():
        return 0.0
    return float(np.sign(np.prod(sums / sizes).real) * sizes.min())


def critical_pair(eigenvalues: Array) -> complex | None:
    """Of the pair whose sum is nearest to zero the eigenvalue above the real axis; None for a pair of real ones."""
    i, j = np.triu_indices(len(eigenvalues), 1)
    nearest = int(np.argmin(np.abs(eigenvalues[i] + eigenvalues[j])))
    value = eigenvalues[i[nearest]]
    scale = np.abs(eigenvalues).max()
    if abs(value.imag) <= 1e-6 * scale:
        return None
    return complex(value.real, abs(value.imag))


def null_vectors(matrix: Array) -> tuple[Array, Array]:
    """Right and left vectors of the smallest singular value."""
    left, _, right = np.linalg.svd(matrix)
    return right[-1].conj(), left[:, -1]


def lyapunov(evaluator: Evaluator, z: Array, omega: float) -> float:
    """The first Lyapunov coefficient at a Hopf point with eigenvalues ``+- i omega``; negative: stable cycles are born."""
    n = evaluator.n
    jacobian = evaluator.slopes(z)[:, :n]
    q = null_vectors(jacobian - 1j * omega * np.eye(n))[0]
    p = null_vectors(jacobian.T + 1j * omega * np.eye(n))[0]
    p = p / np.vdot(p, q).conj()  # so that <p, q> = conj(p) . q = 1

    def form(*vectors: Array) -> Array:
        return evaluator.along(z, *(np.concatenate([v, np.zeros(evaluator.k)]) for v in vectors))

    mean = np.linalg.solve(jacobian, form(q, q.conj()))
    double = np.linalg.solve(2j * omega * np.eye(n) - jacobian, form(q, q))
    total = form(q, q, q.conj()) - 2.0 * form(q, mean) + form(q.conj(), double)
    return float(np.vdot(p, total).real / (2.0 * omega))


def fold_coefficient(evaluator: Evaluator, z: Array) -> float:
    """The quadratic coefficient on the centre manifold of a fold, ``<w, B(v, v)> / 2``; zero at a cusp."""
    right, left = null_vectors(evaluator.slopes(z)[:, : evaluator.n])
    overlap = left @ right
    v = np.concatenate([right, np.zeros(evaluator.k)])
    value = 0.5 * float(left @ evaluator.along(z, v, v))
    return float(value / overlap) if abs(overlap) > 1e-12 else value


def branch_point(evaluator: Evaluator, z: Array, scale: Array) -> Array:
    """The branch point next to ``z = (x, p)``, solved for: ``f + b w = 0, w^T f_z = 0, |w| = 1``, with ``b = 0``."""
    n = evaluator.n
    w = null_vectors(evaluator.slopes(z))[1]
    unknown = np.concatenate([z, [0.0], w])
    pairs = [(i, j) for i in range(n + 1) for j in range(n + 1)]
    eye = np.eye(n + 1)
    first, second = np.array([eye[i] for i, _ in pairs]).T, np.array([eye[j] for _, j in pairs]).T
    for _ in range(8):
        z, b, w = unknown[: n + 1], unknown[n + 1], unknown[n + 2 :]
        slopes = evaluator.slopes(z)
        residual = np.concatenate([evaluator.at(z) + b * w, slopes.T @ w, [w @ w - 1.0]])
        hessian = (w @ evaluator.along(z, first, second)).reshape(n + 1, n + 1)
        matrix = np.zeros((2 * n + 2, 2 * n + 2))
        matrix[:n, : n + 1], matrix[:n, n + 1], matrix[:n, n + 2 :] = slopes, w, b * np.eye(n)
        matrix[n : 2 * n + 1, : n + 1], matrix[n : 2 * n + 1, n + 2 :] = hessian, slopes.T
        matrix[-1, n + 2 :] = 2.0 * w
        try:
            step = np.linalg.solve(matrix, -residual)
        except np.linalg.LinAlgError:
            break
        unknown = unknown + step
        if np.abs(step[: n + 1] / scale).max() < 1e-13:
            break
    moved = np.abs((unknown[: n + 1] - z) / scale).max()
    return unknown[: n + 1] if np.isfinite(moved) and moved < 1e-3 else z


def other_tangent(evaluator: Evaluator, z: Array, tangent: Array, scale: Array) -> Array:
    """The (scaled) tangent of the other branch through a branch point, given one branch's."""
    slopes = evaluator.slopes(z) * scale
    left, _, right = np.linalg.svd(slopes)
    w, null = left[:, -1], right[-2:]
    one = null.T @ (null @ tangent)
    one = one / np.linalg.norm(one)
    two = null[0] - (null[0] @ one) * one
    other = null[1] - (null[1] @ one) * one
    two = two if np.linalg.norm(two) > np.linalg.norm(other) else other
    two = two / np.linalg.norm(two)
    mixed = w @ evaluator.along(z, one * scale, two * scale)
    pure = w @ evaluator.along(z, two * scale, two * scale)
    return two - pure / (2.0 * mixed) * one if abs(mixed) > 1e-10 * (abs(pure) + 1e-300) and mixed else two
