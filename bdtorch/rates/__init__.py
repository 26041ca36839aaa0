"""Rate models of populations, and elementary oscillators."""

from bdtorch.rates.continuous_attractor import ContinuousAttractor as ContinuousAttractor
from bdtorch.rates.fitzhugh_nagumo import FitzHughNagumo as FitzHughNagumo
from bdtorch.rates.leaky_rate import LeakyRate as LeakyRate
from bdtorch.rates.mean_field import MontbrioPazoRoxin as MontbrioPazoRoxin
from bdtorch.rates.wilson_cowan import WilsonCowan as WilsonCowan
from bdtorch.rates.wong_wang import WongWang as WongWang
