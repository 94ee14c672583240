"""Layers: forward and backward next to each other, written once for NumPy and CuPy.

A layer works alone, as in the book, or in a network (`xpnet.nets`), which keeps the parameters of all its layers in
one vector.
"""

from xpnet.layers import activation
from xpnet.layers.activation import *
from xpnet.layers.affine import Affine
from xpnet.layers.arithmetic import AddLayer, DivLayer, MatMulLayer, MulLayer, PowLayer, SubLayer
from xpnet.layers.attention import CrossAttention, MultiHeadAttention
from xpnet.layers.base import Layer, Loss
from xpnet.layers.bidirectional import Bidirectional
from xpnet.layers.convolution import Convolution
from xpnet.layers.elementary import ExpLayer, LogLayer, MaxLayer, MeanLayer, SumLayer
from xpnet.layers.embedding import Embedding, Unembedding
from xpnet.layers.flatten import Flatten
from xpnet.layers.loss import (
    HingeWithLoss,
    HuberWithLoss,
    IdentityWithLoss,
    PoissonWithLoss,
    SigmoidWithLoss,
    SoftmaxWithLoss,
)
from xpnet.layers.normalization import BatchNormalization, LayerNorm
from xpnet.layers.padded import PaddedMean
from xpnet.layers.pooling import AveragePooling, GlobalAveragePooling, Pooling
from xpnet.layers.positions import LearnedPositionalEncoding, PositionalEncoding
from xpnet.layers.preprocessing import Normalize
from xpnet.layers.recurrent import GRU, LSTM, RNN
from xpnet.layers.regularization import Dropout
from xpnet.layers.residual import Residual
from xpnet.layers.transformer import TransformerBlock

__all__ = [
    *activation.__all__,
    "GRU",
    "LSTM",
    "RNN",
    "AddLayer",
    "Affine",
    "AveragePooling",
    "BatchNormalization",
    "Bidirectional",
    "Convolution",
    "CrossAttention",
    "DivLayer",
    "Dropout",
    "Embedding",
    "ExpLayer",
    "Flatten",
    "GlobalAveragePooling",
    "HingeWithLoss",
    "HuberWithLoss",
    "IdentityWithLoss",
    "Layer",
    "LayerNorm",
    "LearnedPositionalEncoding",
    "LogLayer",
    "Loss",
    "MatMulLayer",
    "MaxLayer",
    "MeanLayer",
    "MulLayer",
    "MultiHeadAttention",
    "Normalize",
    "PaddedMean",
    "PoissonWithLoss",
    "Pooling",
    "PositionalEncoding",
    "PowLayer",
    "Residual",
    "SigmoidWithLoss",
    "SoftmaxWithLoss",
    "SubLayer",
    "SumLayer",
    "TransformerBlock",
    "Unembedding",
]
