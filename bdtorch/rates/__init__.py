"""Rate models of populations."""

from bdtorch.rates.wilson_cowan import WilsonCowan as WilsonCowan
