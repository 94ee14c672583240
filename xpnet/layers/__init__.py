"""Layers: forward and backward next to each other, each written once against `xp`.

A layer works alone, as in the book, or as a brick of a network (`xpnet.nets`), which keeps the parameters of all
its layers in one vector.
"""

from xpnet.layers.activation import Relu, Sigmoid
from xpnet.layers.affine import Affine
from xpnet.layers.arithmetic import AddLayer, MulLayer
from xpnet.layers.base import Layer, Loss
from xpnet.layers.loss import SoftmaxWithLoss

__all__ = ["AddLayer", "Affine", "Layer", "Loss", "MulLayer", "Relu", "Sigmoid", "SoftmaxWithLoss"]
