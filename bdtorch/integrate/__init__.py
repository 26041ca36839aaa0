"""Integrators: small frozen objects whose ``step`` advances a pytree ``y`` by ``dt``."""

from bdtorch.integrate._base import Integrator as Integrator
from bdtorch.integrate._loop import Prepared as Prepared
from bdtorch.integrate._loop import PythonLoop as PythonLoop
from bdtorch.integrate._loop import Step as Step
from bdtorch.integrate._loop import TimeLoop as TimeLoop
from bdtorch.integrate._methods import Method as Method
from bdtorch.integrate._methods import methods as methods
from bdtorch.integrate.exponential import ExponentialEuler as ExponentialEuler
from bdtorch.integrate.runge_kutta import RK4 as RK4
from bdtorch.integrate.runge_kutta import Euler as Euler
from bdtorch.integrate.runge_kutta import Heun as Heun
from bdtorch.integrate.runge_kutta import Midpoint as Midpoint
from bdtorch.integrate.runge_kutta import RungeKutta as RungeKutta
