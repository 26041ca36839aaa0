"""Pictures of simulations. Each function draws into Matplotlib axes and returns them; install ``bdtorch[plot]``."""

from bdtorch._axes import COLOURS as COLOURS
from bdtorch._axes import STYLE as STYLE
from bdtorch.plot.spikes import raster as raster
from bdtorch.plot.spikes import rate as rate
from bdtorch.plot.variables import traces as traces
