"""Networks: delays, projections and the container that joins them."""

from bdtorch.network.delay import Delay as Delay
from bdtorch.network.network import Network as Network
from bdtorch.network.projection import Projection as Projection
