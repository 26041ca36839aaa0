"""Spike nonlinearities: an exact Heaviside step forward, a smooth slope backward."""

from bdtorch.surrogate._surrogate import Arctan as Arctan
from bdtorch.surrogate._surrogate import Sigmoid as Sigmoid
from bdtorch.surrogate._surrogate import SuperSpike as SuperSpike
from bdtorch.surrogate._surrogate import Surrogate as Surrogate
from bdtorch.surrogate._surrogate import Triangle as Triangle
