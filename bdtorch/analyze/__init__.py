"""What simulations and models mean: statistics of spikes, and the dynamics of low-dimensional systems."""

from bdtorch.analyze._diagram import Branch as Branch
from bdtorch.analyze._diagram import CycleBranch as CycleBranch
from bdtorch.analyze._diagram import Diagram as Diagram
from bdtorch.analyze._diagram import SpecialPoint as SpecialPoint
from bdtorch.analyze._field import VectorField as VectorField
from bdtorch.analyze._results import FixedPoint as FixedPoint
from bdtorch.analyze._results import LimitCycle as LimitCycle
from bdtorch.analyze._results import Trajectory as Trajectory
from bdtorch.analyze.continuation import continuation as continuation
from bdtorch.analyze.fast_slow import FastSlow as FastSlow
from bdtorch.analyze.fast_slow import fast_slow as fast_slow
from bdtorch.analyze.parameter_plane import Locus as Locus
from bdtorch.analyze.parameter_plane import ParameterPlane as ParameterPlane
from bdtorch.analyze.parameter_plane import parameter_plane as parameter_plane
from bdtorch.analyze.phase_plane import PhasePlane as PhasePlane
from bdtorch.analyze.phase_plane import phase_plane as phase_plane
from bdtorch.analyze.scan import Scan as Scan
from bdtorch.analyze.scan import scan as scan
from bdtorch.analyze.spikes import Intervals as Intervals
from bdtorch.analyze.spikes import PopulationRate as PopulationRate
from bdtorch.analyze.spikes import fano_factor as fano_factor
from bdtorch.analyze.spikes import firing_rates as firing_rates
from bdtorch.analyze.spikes import interval_cv as interval_cv
from bdtorch.analyze.spikes import intervals as intervals
from bdtorch.analyze.spikes import population_rate as population_rate
from bdtorch.analyze.stability import equilibrium_type as equilibrium_type
