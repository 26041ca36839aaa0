"""Rate models of populations."""

from bdtorch.rates.leaky_rate import LeakyRate as LeakyRate
from bdtorch.rates.wilson_cowan import WilsonCowan as WilsonCowan
