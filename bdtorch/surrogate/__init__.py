"""Spike nonlinearities: an exact Heaviside step forward, a smooth slope backward."""

from bdtorch.surrogate._surrogate import Surrogate as Surrogate
from bdtorch.surrogate.bells import Arctan as Arctan
from bdtorch.surrogate.bells import Erf as Erf
from bdtorch.surrogate.bells import Gaussian as Gaussian
from bdtorch.surrogate.bells import MultiGaussian as MultiGaussian
from bdtorch.surrogate.bells import NonzeroSignLog as NonzeroSignLog
from bdtorch.surrogate.bells import PiecewiseExp as PiecewiseExp
from bdtorch.surrogate.bells import QPseudoSpike as QPseudoSpike
from bdtorch.surrogate.bells import Sigmoid as Sigmoid
from bdtorch.surrogate.bells import Slayer as Slayer
from bdtorch.surrogate.bells import SoftSign as SoftSign
from bdtorch.surrogate.bells import SuperSpike as SuperSpike
from bdtorch.surrogate.pieces import S2NN as S2NN
from bdtorch.surrogate.pieces import LeakyRelu as LeakyRelu
from bdtorch.surrogate.pieces import LogTailedRelu as LogTailedRelu
from bdtorch.surrogate.pieces import PiecewiseLeakyRelu as PiecewiseLeakyRelu
from bdtorch.surrogate.pieces import PiecewiseQuadratic as PiecewiseQuadratic
from bdtorch.surrogate.pieces import SquarewaveFourierSeries as SquarewaveFourierSeries
from bdtorch.surrogate.pieces import Triangle as Triangle
