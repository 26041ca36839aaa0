"""Ion channels: flows of gating variables that take the membrane potential; `Channel.drive` is what they do to it."""

from bdtorch.channels._channel import Channel as Channel
from bdtorch.channels._channel import exprel as exprel
from bdtorch.channels._channel import linoid as linoid
from bdtorch.channels.leak import Leak as Leak
from bdtorch.channels.potassium import PotassiumHH as PotassiumHH
from bdtorch.channels.potassium import PotassiumTM as PotassiumTM
from bdtorch.channels.sodium import SodiumHH as SodiumHH
from bdtorch.channels.sodium import SodiumTM as SodiumTM
