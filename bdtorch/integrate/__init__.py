"""Integrators: small frozen objects whose ``step`` advances a pytree ``y`` by ``dt``."""

from bdtorch.integrate._base import Integrator as Integrator
from bdtorch.integrate.exponential import ExponentialEuler as ExponentialEuler
from bdtorch.integrate.runge_kutta import RK4 as RK4
from bdtorch.integrate.runge_kutta import Euler as Euler
from bdtorch.integrate.runge_kutta import Heun as Heun
from bdtorch.integrate.runge_kutta import Midpoint as Midpoint
from bdtorch.integrate.runge_kutta import RungeKutta as RungeKutta
