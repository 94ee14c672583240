"""Layers: forward and backward next to each other, each written once against `xp`.

A layer works alone, as in the book, or as a brick of a network (`xpnet.nets`), which keeps the parameters of all
its layers in one vector.
"""

from xpnet.layers.activation import Relu, Sigmoid
from xpnet.layers.affine import Affine
from xpnet.layers.arithmetic import AddLayer, DivLayer, MatMulLayer, MulLayer, PowLayer, SubLayer
from xpnet.layers.base import Layer, Loss
from xpnet.layers.convolution import Convolution
from xpnet.layers.elementary import ExpLayer, LogLayer, MaxLayer, MeanLayer, SumLayer
from xpnet.layers.flatten import Flatten
from xpnet.layers.loss import SoftmaxWithLoss
from xpnet.layers.pooling import AveragePooling, GlobalAveragePooling, Pooling

__all__ = [
    "AddLayer",
    "Affine",
    "AveragePooling",
    "Convolution",
    "DivLayer",
    "ExpLayer",
    "Flatten",
    "GlobalAveragePooling",
    "Layer",
    "LogLayer",
    "Loss",
    "MatMulLayer",
    "MaxLayer",
    "MeanLayer",
    "MulLayer",
    "Pooling",
    "PowLayer",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
    "SubLayer",
    "SumLayer",
]
