"""Networks: layers, their parameters in one vector, and a loss."""

from xpnet.nets.architecture import load
from xpnet.nets.convolutional import DeepConvNet, LeNet5, SimpleConvNet
from xpnet.nets.graph_network import GraphNetwork
from xpnet.nets.multi_layer_net import MultiLayerNet, MultiLayerNetExtend
from xpnet.nets.network import Network
from xpnet.nets.sequence import GPT, LanguageModel, LanguageNetwork, SequenceClassifier
from xpnet.nets.sequential import Sequential
from xpnet.nets.two_layer_net import TwoLayerNet

__all__ = [
    "GPT",
    "DeepConvNet",
    "GraphNetwork",
    "LanguageModel",
    "LanguageNetwork",
    "LeNet5",
    "MultiLayerNet",
    "MultiLayerNetExtend",
    "Network",
    "SequenceClassifier",
    "Sequential",
    "SimpleConvNet",
    "TwoLayerNet",
    "load",
]
