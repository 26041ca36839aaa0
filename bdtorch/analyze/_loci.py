"""Curves of folds and of Hopf points in two parameters, as solutions of extended systems.

Folds: ``f = 0, A v = 0, |v| = 1``. Hopf points: ``f = 0, A^2 v = -k v, |v| = 1, c v = 0`` with ``k`` the square of the
frequency, regular through Bogdanov-Takens points, where ``k`` vanishes.

Source: Kuznetsov (2004), doi:10.1007/978-1-4757-3978-7, section 10.3.
"""

from __future__ import annotations

import numpy as np

from bdtorch.analyze._evaluate import Array, Evaluator
from bdtorch.analyze._normal_forms import hopf_test, lyapunov, null_vectors
from bdtorch.analyze._trace import Curve, CurvePoint


class FoldLocus:
    """Unknowns ``(x, v, p, q)``.

    Args:
        evaluator: The field, with two active parameters.
        z: A fold, ``(n + 2,)``.
        scale: Scales of variables and parameters, ``(n + 2,)``.
        low: Lower limits of these.
        high: Upper limits.
    """

    kind = "fold"
    events = ("cusp", "Bogdanov-Takens", "zero-Hopf")

    def __init__(self, evaluator: Evaluator, z: Array, scale: Array, low: Array, high: Array) -> None:
        self.evaluator, self.n = evaluator, evaluator.n
        v, self._left = null_vectors(evaluator.slopes(z)[:, : self.n])
        self.start = np.concatenate([z[: self.n], v, z[self.n :]])
        free = np.full(self.n, np.inf)
        self.scale = np.concatenate([scale[: self.n], np.ones(self.n), scale[self.n :]])
        names = (*evaluator.field.names, *("v",) * self.n, *evaluator.active)
        low, high = (np.concatenate([b[: self.n], s * free, b[self.n :]]) for b, s in ((low, -1.0), (high, 1.0)))
        self.curve = Curve(self.residual, self.jacobian, self.scale, low, high, names, self.tests, controls=2)

    def split(self, u: Array) -> tuple[Array, Array]:
        """The point ``z = (x, p, q)`` and the null vector."""
        return np.concatenate([u[: self.n], u[2 * self.n :]]), u[self.n : 2 * self.n]

    def residual(self, u: Array) -> Array:
        z, v = self.split(u)
        slopes = self.evaluator.slopes(z)
        return np.concatenate([self.evaluator.at(z), slopes[:, : self.n] @ v, [v @ v - 1.0]])

    def jacobian(self, u: Array) -> Array:
        n = self.n
        z, v = self.split(u)
        slopes = self.evaluator.slopes(z)
        bent = self.evaluator.along(z, np.concatenate([v, np.zeros(2)]), np.eye(n + 2))
        out = np.zeros((2 * n + 1, 2 * n + 2))
        out[:n, :n], out[:n, 2 * n :] = slopes[:, :n], slopes[:, n:]
        out[n : 2 * n, :n], out[n : 2 * n, n : 2 * n], out[n : 2 * n, 2 * n :] = bent[:, :n], slopes[:, :n], bent[:, n:]
        out[-1, n : 2 * n] = 2.0 * v
        return out

    def tests(self, point: CurvePoint) -> Array:
        n = self.n
        z, v = self.split(point.y * self.scale)
        matrix = self.evaluator.slopes(z)[:, :n]
        # The left null vector by a bordered system, so that its sign goes on from point to point.
        border = np.block([[matrix.T, v[:, None]], [self._left[None], np.zeros((1, 1))]])
        w = np.linalg.lstsq(border, np.append(np.zeros(n), 1.0), rcond=None)[0][:n]
        w = w / np.linalg.norm(w)
        wide = np.concatenate([v, np.zeros(2)])
        values = np.linalg.eigvals(matrix).astype(complex)
        rest = np.delete(values, int(np.argmin(np.abs(values))))
        return np.array([w @ self.evaluator.along(z, wide, wide), _signed_least(rest), hopf_test(rest)])

    def happens(self, which: int, point: CurvePoint) -> bool:
        """Whether the change of sign of a test is what it stands for."""
        z, _ = self.split(point.y * self.scale)
        values = np.linalg.eigvals(self.evaluator.slopes(z)[:, : self.n])
        rest = np.delete(values, int(np.argmin(np.abs(values))))
        return self.events[which] != "zero-Hopf" or bool(np.abs(rest.imag).max() > 1e-6 * np.abs(values).max())


class HopfLocus:
    """Unknowns ``(x, v, k, p, q)``; it ends where ``k`` comes down to zero.

    Args:
        evaluator: The field, with two active parameters.
        z: A Hopf point, ``(n + 2,)``.
        omega: Its frequency; 0 at a Bogdanov-Takens point.
        scale: Scales of variables and parameters, ``(n + 2,)``.
        low: Lower limits of these.
        high: Upper limits.
    """

    kind = "Hopf"
    events = ("generalised Hopf", "zero-Hopf")

    def __init__(self, evaluator: Evaluator, z: Array, omega: float, scale: Array, low: Array, high: Array) -> None:
        self.evaluator, self.n = evaluator, evaluator.n
        n = self.n
        matrix = evaluator.slopes(z)[:, :n]
        square = omega**2
        if omega > 0.0:
            q = null_vectors(matrix - 1j * omega * np.eye(n))[0]
            v, across = q.real / np.linalg.norm(q.real), q.imag
        else:
            # The pair has merged: its plane is spanned by the null vector and one that is mapped to it.
            across = null_vectors(matrix)[0]
            v = np.linalg.lstsq(matrix, across, rcond=1e-5)[0]
            v = v - (v @ across) * across
            omega = 1.0 / float(np.linalg.norm(v))
            v = v * omega
        across = across - (across @ v) * v
        self._across = across / np.linalg.norm(across)
        self.start = np.concatenate([z[:n], v, [square], z[n:]])
        self.scale = np.concatenate([scale[:n], np.ones(n), [omega**2], scale[n:]])
        free = np.full(n, np.inf)
        names = (*evaluator.field.names, *("v",) * n, "the square of the frequency", *evaluator.active)
        low = np.concatenate([low[:n], -free, [0.0], low[n:]])
        high = np.concatenate([high[:n], free, [np.inf], high[n:]])
        self.curve = Curve(self.residual, self.jacobian, self.scale, low, high, names, self.tests, controls=2)

    def split(self, u: Array) -> tuple[Array, Array, float]:
        """The point ``z = (x, p, q)``, the vector, and the square of the frequency."""
        n = self.n
        return np.concatenate([u[:n], u[2 * n + 1 :]]), u[n : 2 * n], float(u[2 * n])

    def residual(self, u: Array) -> Array:
        z, v, square = self.split(u)
        matrix = self.evaluator.slopes(z)[:, : self.n]
        turn = matrix @ (matrix @ v) + square * v
        return np.concatenate([self.evaluator.at(z), turn, [v @ v - 1.0, self._across @ v]])

    def jacobian(self, u: Array) -> Array:
        n = self.n
        z, v, square = self.split(u)
        slopes = self.evaluator.slopes(z)
        matrix = slopes[:, :n]
        eye, none = np.eye(n + 2), np.zeros(2)
        bent = self.evaluator.along(z, np.concatenate([matrix @ v, none]), eye)
        bent = bent + matrix @ self.evaluator.along(z, np.concatenate([v, none]), eye)
        out = np.zeros((2 * n + 2, 2 * n + 3))
        out[:n, :n], out[:n, 2 * n + 1 :] = matrix, slopes[:, n:]
        out[n : 2 * n, :n], out[n : 2 * n, 2 * n + 1 :] = bent[:, :n], bent[:, n:]
        out[n : 2 * n, n : 2 * n], out[n : 2 * n, 2 * n] = matrix @ matrix + square * np.eye(n), v
        out[2 * n, n : 2 * n], out[2 * n + 1, n : 2 * n] = 2.0 * v, self._across
        return out

    def lyapunov(self, point: CurvePoint) -> float:
        """The first Lyapunov coefficient; not a number where the frequency vanishes."""
        z, _, square = self.split(point.y * self.scale)
        if square <= 1e-8 * self.scale[2 * self.n]:
            return float("nan")
        return lyapunov(self.evaluator, z, float(np.sqrt(square)))

    def tests(self, point: CurvePoint) -> Array:
        z, _, square = self.split(point.y * self.scale)
        values = np.linalg.eigvals(self.evaluator.slopes(z)[:, : self.n]).astype(complex)
        pair = np.argsort(np.abs(values**2 + square))[:2]
        return np.array([self.lyapunov(point), _signed_least(np.delete(values, pair))])

    def happens(self, which: int, point: CurvePoint) -> bool:
        """Whether the change of sign of a test is what it stands for."""
        return bool(np.isfinite(self.lyapunov(point)))


def _signed_least(values: Array) -> float:
    """The least modulus of eigenvalues with the sign of their product."""
    if not len(values):
        return 1.0
    sizes = np.abs(values)
    return float(np.sign(np.prod(values / np.maximum(sizes, 1e-300)).real) * sizes.min())
