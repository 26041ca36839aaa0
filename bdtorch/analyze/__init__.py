"""What simulations and models mean: statistics of spikes."""

from bdtorch.analyze.spikes import Intervals as Intervals
from bdtorch.analyze.spikes import PopulationRate as PopulationRate
from bdtorch.analyze.spikes import fano_factor as fano_factor
from bdtorch.analyze.spikes import firing_rates as firing_rates
from bdtorch.analyze.spikes import interval_cv as interval_cv
from bdtorch.analyze.spikes import intervals as intervals
from bdtorch.analyze.spikes import population_rate as population_rate
