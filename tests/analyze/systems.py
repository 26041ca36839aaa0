"""Systems with known bifurcations."""

from __future__ import annotations

from typing import Any


def hopf(s: Any, p: Any) -> dict[str, Any]:
    """In polar coordinates r' = r (mu + sign r^2), angle' = 1."""
    x, y = s["x"], s["y"]
    square = x * x + y * y
    growth = p["mu"] + p["sign"] * square
    return {"x": growth * x - y, "y": growth * y + x}


def bautin(s: Any, p: Any) -> dict[str, Any]:
    """r' = r (mu + b r^2 - r^4), angle' = 1: a generalised Hopf point at mu = b = 0."""
    x, y = s["x"], s["y"]
    square = x * x + y * y
    growth = p["mu"] + p["b"] * square - square**2
    return {"x": growth * x - y, "y": growth * y + x}


def lorenz(s: Any, p: Any) -> list[Any]:
    return [10.0 * (s["y"] - s["x"]), s["x"] * (p["r"] - s["z"]) - s["y"], s["x"] * s["y"] - 8.0 / 3.0 * s["z"]]


def brusselator(s: Any, p: Any) -> list[Any]:
    reaction = s["x"] ** 2 * s["y"]
    return [p["a"] - (p["b"] + 1.0) * s["x"] + reaction, p["b"] * s["x"] - reaction]


def torus(s: Any, p: Any) -> list[Any]:
    """Two oscillators without coupling; the second starts at mu = 1, on the cycles of the first."""
    x, y, u, v = s["x"], s["y"], s["u"], s["v"]
    first, second = p["mu"] - x * x - y * y, p["mu"] - 1.0 - u * u - v * v
    return [first * x - y, first * y + x, second * u - 0.7 * v, second * v + 0.7 * u]


def takens(s: Any, p: Any) -> list[Any]:
    """The normal form x' = y, y' = a + b x + x^2 + x y: Bogdanov-Takens at a = b = 0."""
    return [s["y"], p["a"] + p["b"] * s["x"] + s["x"] ** 2 + s["x"] * s["y"]]


def roessler(s: Any, p: Any) -> list[Any]:
    return [-s["y"] - s["z"], s["x"] + p["a"] * s["y"], p["b"] + s["z"] * (s["x"] - p["c"])]
