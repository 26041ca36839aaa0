"""Networks: delays, projections, layers, and the containers that join them."""

from bdtorch.network.delay import Delay as Delay
from bdtorch.network.network import Network as Network
from bdtorch.network.projection import Projection as Projection
from bdtorch.network.recurrent import Readout as Readout
from bdtorch.network.recurrent import Recurrent as Recurrent
from bdtorch.network.sequential import Sequential as Sequential
