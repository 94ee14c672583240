"""Networks for sequences of ids: classifiers and language models."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from xpnet import functions, settings
from xpnet.device import Device, asnumpy
from xpnet.layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Bidirectional,
    Dropout,
    Embedding,
    Layer,
    LayerNorm,
    LearnedPositionalEncoding,
    Loss,
    MeanLayer,
    PaddedMean,
    TransformerBlock,
    Unembedding,
)
from xpnet.layers.recurrent import Recurrent
from xpnet.layers.row import advance
from xpnet.nets.sequential import Sequential
from xpnet.settings import count, fraction
from xpnet.typing import Array, DTypeLike, Seed

__all__ = ["GPT", "LanguageModel", "LanguageNetwork", "SequenceClassifier"]

Cell = Literal["rnn", "lstm", "gru"]
CELLS: dict[str, type[Recurrent]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


class SequenceClassifier(Sequential):
    """Embedding, recurrent layers, mean over the steps, affine layer: one label for a sequence of ids.

    x is (N, T) ids and t (N,) class ids. With a `padding_id`, sequences of a minibatch may have different lengths.

    Parameters
    ----------
    vocab_size : int
        Number of ids, V.
    size : int
        Number of features of an id, and of the output of each recurrent layer in one direction.
    classes : int
        Number of classes.
    cell : {"lstm", "gru", "rnn"}, default "lstm"
        Kind of the recurrent layers.
    num_layers : int, default 1
        Number of recurrent layers.
    bidirectional : bool, default False
        Whether each of them reads in both directions.
    dropout : float in [0, 1), default 0.0
        Probability of `Dropout` in front of each layer behind the embedding.
    padding_id : int, optional
        One of the ids, which fills up short sequences behind their end (`PaddedMean`).
    loss, device, dtype
        As in `Sequential` and `Network`.
    seed : int or numpy.random.Generator, optional
        Seed of the initial weights and of dropout, which are drawn on the host.
    """

    def __init__(
        self,
        vocab_size: int,
        size: int,
        classes: int,
        *,
        cell: Cell = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        padding_id: int | None = None,
        loss: Loss | None = None,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        device = Device(device)
        rng, size, kind = device.rng(seed), count("size", size), CELLS[settings.choice("cell", cell, CELLS)]
        layers: list[Layer] = [Embedding.from_sizes(count("vocab_size", vocab_size), size, rng=rng, dtype=dtype)]
        width = size
        for _ in range(count("num_layers", num_layers)):
            layers += _dropout(dropout, rng)
            one, *other = (kind.from_sizes(width, size, rng=rng, dtype=dtype) for _ in range(1 + bool(bidirectional)))
            layers.append(Bidirectional(one, *other) if other else one)
            width = size * (1 + len(other))
        output = Affine.from_sizes(width, count("classes", classes), std="lecun", rng=rng, dtype=dtype)
        layers = [*layers, MeanLayer(1)] if padding_id is None else [PaddedMean(*layers, padding_id=padding_id)]
        super().__init__([*layers, *_dropout(dropout, rng), output], loss, device=device)


class LanguageNetwork(Sequential):
    """Base class of networks that predict the next id of a sequence at each step: `generate` continues sequences.

    Each layer predicts piece by piece (`xpnet.layers.row.advance`).
    """

    is_language_model = True

    @property
    def context(self) -> int | None:
        """Largest number of ids that a prediction looks back on: that of learned positions, or None for all."""
        lengths = [len(layer.W) for layer in self.layers.values() if isinstance(layer, LearnedPositionalEncoding)]
        return min(lengths, default=None)

    def generate(
        self,
        x: Array,
        number: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        rng: Seed = None,
    ) -> Array:
        """Return sequences continued by ids that are drawn from the predicted probabilities.

        See `stream`, which has the settings.

        Parameters
        ----------
        x : (N, T)
            Ids of N sequences, T > 0.
        number : int
            Number of further ids.
        temperature, top_k, rng
            As in `stream`.

        Returns
        -------
        (N, T + number)
            Ids on the network's device, in the dtype of x.
        """
        x, number = self.as_array("x", x), count("number", number)
        ids = self.stream(x, temperature=temperature, top_k=top_k, rng=rng)
        with self.device.activate():
            further = [self.device.asarray(i[:, None], x.dtype) for i in itertools.islice(ids, number)]
            return self.device.xp.concatenate([x, *further], axis=1)

    def stream(
        self,
        x: Array,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        rng: Seed = None,
    ) -> Iterator[np.ndarray]:
        """Return an iterator without end over the ids that continue sequences, drawn from predicted probabilities.

        Each new id takes one pass over one step: recurrent layers keep their state, and attention its keys and values.
        Once there are more ids than `context`, the network reads the last half of them anew.

        Parameters
        ----------
        x : (N, T)
            Ids of N sequences, T > 0.
        temperature : float, default 1.0
            Divides the scores: below 1 the likely ids are drawn more often. With 0 it is always the likeliest.
        top_k : int, optional
            Number of likeliest ids to draw from; by default all.
        rng : numpy.random.Generator or int, optional
            Random generator or seed. Random numbers are drawn on the host.

        Yields
        ------
        (N,)
            The next id of each sequence, on the host.
        """
        x = self.as_array("x", x)
        temperature = settings.not_negative("temperature", temperature)
        top_k = None if top_k is None else count("top_k", top_k)
        generator = settings.generator("rng", rng)
        if x.ndim != 2 or not x.shape[1]:
            raise ValueError(f"{type(self).__name__}.generate expected x of shape (N, T) with T > 0, got {x.shape}")
        return self._drawn(x, temperature, top_k, generator)

    def _drawn(self, x: Array, temperature: float, top_k: int | None, rng: np.random.Generator) -> Iterator[np.ndarray]:
        states: Sequence[Any] | None = None
        context = self.context
        recent = piece = x if context is None else x[:, -context:]
        while True:
            with self.device.activate():
                scores, states = advance(self.layers.values(), piece, states)
                ids = _draw(asnumpy(scores[:, -1]).astype("float64"), temperature, top_k, rng)
                piece = self.device.asarray(ids[:, None], x.dtype)
                if context is not None:
                    recent = self.device.xp.concatenate([recent, piece], axis=1)
                    if recent.shape[1] > context:
                        recent = piece = recent[:, -max(context // 2, 1) :]
                        states = None
            yield ids


class LanguageModel(LanguageNetwork):
    """Language model of recurrent layers: embedding, recurrent layers, scores of the next id at each step.

    The output shares its weights with the embedding (`Unembedding`). x and t are (N, T) ids; t is x one step later.

    Parameters
    ----------
    vocab_size : int
        Number of ids, V.
    size : int
        Number of features of an id, and of the output of each recurrent layer.
    cell : {"lstm", "gru", "rnn"}, default "lstm"
        Kind of the recurrent layers.
    num_layers : int, default 1
        Number of recurrent layers.
    dropout : float in [0, 1), default 0.0
        Probability of `Dropout` in front of each layer behind the embedding.
    batch_size : int, optional
        Number of sequences whose state is carried from one training batch to the next (truncated backpropagation); by
        default each batch begins new sequences.
    device, dtype, seed
        As in `SequenceClassifier`.

    Examples
    --------
    >>> net = LanguageModel(5, 8, seed=0)
    >>> list(net.layers), list(net.params)
    (['Embedding1', 'LSTM1', 'Unembedding1'], ['W1', 'Wx1', 'Wh1', 'b1'])
    >>> net.generate([[0, 1, 2]], 4, temperature=0).shape
    (1, 7)
    """

    def __init__(
        self,
        vocab_size: int,
        size: int,
        *,
        cell: Cell = "lstm",
        num_layers: int = 1,
        dropout: float = 0.0,
        batch_size: int | None = None,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        device = Device(device)
        rng, size, kind = device.rng(seed), count("size", size), CELLS[settings.choice("cell", cell, CELLS)]
        embedding = Embedding.from_sizes(count("vocab_size", vocab_size), size, std=size**-0.5, rng=rng, dtype=dtype)
        layers: list[Layer] = [embedding]
        for _ in range(count("num_layers", num_layers)):
            layers += _dropout(dropout, rng)
            layers.append(kind.from_sizes(size, size, batch_size=batch_size, rng=rng, dtype=dtype))
        super().__init__([*layers, *_dropout(dropout, rng), Unembedding(embedding)], device=device)


class GPT(LanguageNetwork):
    """Language model of causal transformer blocks (Radford et al., 2019).

    Embedding and positions, blocks, layer norm, scores of the next id at each step. The output shares its weights with
    the embedding (`Unembedding`). x and t are (N, T) ids; t is x one step later.

    Parameters
    ----------
    vocab_size : int
        Number of ids, V.
    length : int or None
        Longest sequence, for learned positions. With None, positions rotate queries and keys, and any length will do.
    size : int
        Number of features of an id.
    num_heads : int
        Number of heads of each block, a divisor of `size`.
    num_layers : int
        Number of blocks.
    dropout : float in [0, 1), default 0.0
        Probability of `Dropout` behind the positions and in the blocks.
    device, dtype, seed
        As in `SequenceClassifier`.

    Examples
    --------
    >>> net = GPT(5, 16, 8, num_heads=2, num_layers=1, seed=0)
    >>> list(net.layers)
    ['Embedding1', 'LearnedPositionalEncoding1', 'TransformerBlock1', 'LayerNorm1', 'Unembedding1']
    >>> net.generate([[0, 1, 2]], 4, top_k=2, rng=0).shape
    (1, 7)
    """

    def __init__(
        self,
        vocab_size: int,
        length: int | None,
        size: int,
        *,
        num_heads: int,
        num_layers: int,
        dropout: float = 0.0,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        device = Device(device)
        rng, size = device.rng(seed), count("size", size)
        embedding = Embedding.from_sizes(count("vocab_size", vocab_size), size, std=size**-0.5, rng=rng, dtype=dtype)
        layers: list[Layer] = [embedding]
        if length is not None:
            layers.append(LearnedPositionalEncoding.from_sizes(length, size, rng=rng, dtype=dtype))
        layers += _dropout(dropout, rng)
        layers += [
            TransformerBlock.from_sizes(
                size, num_heads, causal=True, rotary=length is None, dropout=dropout, rng=rng, dtype=dtype
            )
            for _ in range(count("num_layers", num_layers))
        ]
        norm = LayerNorm(np.ones(size, dtype), np.zeros(size, dtype))
        super().__init__([*layers, norm, Unembedding(embedding)], device=device)


def _dropout(ratio: float, rng: np.random.Generator) -> list[Layer]:
    return [Dropout(ratio, seed=rng)] if fraction("dropout", ratio) else []


def _draw(scores: np.ndarray, temperature: float, top_k: int | None, rng: np.random.Generator) -> Array:
    """Draw an id for each row of scores (N, V): from softmax(scores / temperature), among the `top_k` largest."""
    chances = rng.random((len(scores), 1))  # also for temperature 0, so that a seed stays in step
    if not temperature:
        return scores.argmax(axis=1)
    if top_k is not None and top_k < scores.shape[1]:
        least = np.partition(scores, -top_k, axis=1)[:, -top_k, None]
        scores = np.where(scores < least, -np.inf, scores)
    sums = functions.softmax(scores / temperature).cumsum(axis=1)
    return (sums <= chances * sums[:, -1:]).sum(axis=1)
