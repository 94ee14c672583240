"""Networks: layers, their parameters in one vector, and a loss."""

from xpnet.nets.compiled import CompiledStep
from xpnet.nets.convolutional import LeNet5, SimpleConvNet
from xpnet.nets.graph_network import GraphNetwork
from xpnet.nets.network import Network
from xpnet.nets.sequential import Sequential
from xpnet.nets.two_layer_net import TwoLayerNet

__all__ = ["CompiledStep", "GraphNetwork", "LeNet5", "Network", "Sequential", "SimpleConvNet", "TwoLayerNet"]
