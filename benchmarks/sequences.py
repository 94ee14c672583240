"""Time of a training step of language models, in turns with PyTorch's eager steps and the bare matrix products.

GPT: 4 blocks, 128 wide, 4 heads. LSTM: 1 layer of 128. Both read minibatches of 16 x 64 bytes, and are trained by Adam.
Each round gives each party a turn (`contest.Repeated`). The table has medians in milliseconds and, in brackets, the
quartiles over PyTorch's median. The parties begin with weights of their own: times are compared, not losses.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import threads

BATCH, LENGTH, SIZE, HEADS, BLOCKS, IDS = 16, 64, 128, 4, 4, 256


def by_xpnet(model: str, backend: str) -> Callable[[], object]:
    """Return a call that takes a step by xpnet."""
    from xpnet.nets import GPT, LanguageModel
    from xpnet.optimizers import Adam

    if model == "GPT":
        net = GPT(IDS, LENGTH, SIZE, num_heads=HEADS, num_layers=BLOCKS, seed=0)
    else:
        net = LanguageModel(IDS, SIZE, seed=0)
    step, (x, t) = net.compile(Adam(), BATCH, backend), minibatch()
    return lambda: step.run(x, t, np.arange(BATCH)[None])


def by_pytorch(model: str) -> Callable[[], object]:
    """Return a call that takes a step by PyTorch, eager."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(SIZE), nn.LayerNorm(SIZE)
            self.heads, self.output = nn.Linear(SIZE, 3 * SIZE), nn.Linear(SIZE, SIZE)
            self.first, self.second = nn.Linear(SIZE, 4 * SIZE), nn.Linear(4 * SIZE, SIZE)

        def forward(self, x):
            n, length, _ = x.shape
            parts = self.heads(self.norm1(x)).view(n, length, 3, HEADS, SIZE // HEADS).permute(2, 0, 3, 1, 4)
            o = functional.scaled_dot_product_attention(*parts, is_causal=True)
            x = x + self.output(o.transpose(1, 2).reshape(n, length, SIZE))
            return x + self.second(functional.gelu(self.first(self.norm2(x))))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(IDS, SIZE)
            if model == "GPT":
                self.positions = nn.Parameter(0.02 * torch.randn(LENGTH, SIZE))
                self.layers = nn.Sequential(*(Block() for _ in range(BLOCKS)), nn.LayerNorm(SIZE))
            else:
                self.layers = nn.LSTM(SIZE, SIZE, batch_first=True)

        def forward(self, x):
            x = self.embedding(x)
            x = self.layers(x + self.positions) if model == "GPT" else self.layers(x)[0]
            return x @ self.embedding.weight.T

    torch.manual_seed(0)
    net, (x, t) = Model(), (torch.from_numpy(ids.astype("int64")) for ids in minibatch())
    optimizer = torch.optim.Adam(net.parameters())

    def step():
        optimizer.zero_grad()
        functional.cross_entropy(net(x).reshape(-1, IDS), t.reshape(-1)).backward()
        optimizer.step()

    return step


def bare_products(model: str) -> Callable[[], object]:
    """Return a call that computes the matrix products of a step by NumPy, forward and backward."""
    rows = BATCH * LENGTH
    shapes = [((rows, SIZE), (SIZE, IDS))]
    if model == "GPT":
        wide = [(SIZE, 3 * SIZE), (SIZE, SIZE), (SIZE, 4 * SIZE), (4 * SIZE, SIZE)]
        stacks, width = BATCH * HEADS, SIZE // HEADS
        scores = [
            ((stacks, LENGTH, width), (stacks, width, LENGTH)),
            ((stacks, LENGTH, LENGTH), (stacks, LENGTH, width)),
        ]
        shapes += BLOCKS * ([((rows, W[0]), W) for W in wide] + scores)
    else:
        shapes += [((rows, SIZE), (SIZE, 4 * SIZE))]
    rng, pairs = np.random.default_rng(0), []
    for a, b in shapes:
        x, w = rng.standard_normal(a, "float32"), rng.standard_normal(b, "float32")
        dy = x @ w
        pairs += [(x, w), (dy, w.swapaxes(-1, -2)), (x.swapaxes(-1, -2), dy)]
    if model == "LSTM":  # step by step, and the gradient of the weights at once
        h, W, da = (rng.standard_normal(s, "float32") for s in ((BATCH, SIZE), (SIZE, 4 * SIZE), (BATCH, 4 * SIZE)))
        pairs += LENGTH * [(h, W), (da, W.T)]
        pairs += [(rng.standard_normal((SIZE, rows), "float32"), rng.standard_normal((rows, 4 * SIZE), "float32"))]
    products = [(a, b, a @ b) for a, b in pairs]

    def multiply():
        for a, b, out in products:
            np.matmul(a, b, out=out)

    return multiply


def minibatch() -> tuple[np.ndarray, np.ndarray]:
    """Return ids and labels."""
    ids = np.random.default_rng(0).integers(0, IDS, (BATCH, LENGTH + 1), "uint8")
    return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


def main() -> None:
    """Hold the contests, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=min(2, threads.available()))
    arguments = parser.parse_args()
    threads.pin(arguments.threads)
    import torch
    from contest import Contest, Contestant, Repeated

    from xpnet.tables import format_table

    torch.set_num_threads(arguments.threads)
    rows = []
    for model in ("GPT", "LSTM"):
        calls = {
            "PyTorch eager": by_pytorch(model),
            "xpnet, NumPy": by_xpnet(model, "numpy"),
            "xpnet, Numba": by_xpnet(model, "numba"),
            "bare products": bare_products(model),
        }
        contest = Contest([Contestant(name, lambda call=call: Repeated(call)) for name, call in calls.items()],
                          arguments.rounds)  # fmt: skip
        seconds = {name: np.array(contest.outcome(name)[0]) for name in calls}
        peer = np.median(seconds["PyTorch eager"])
        for name, taken in seconds.items():
            low, high = np.quantile(taken / peer, (0.25, 0.75))
            rows.append((model, name, f"{1e3 * np.median(taken):.1f}", f"{np.median(taken) / peer:.2f}",
                         f"({low:.2f} to {high:.2f})"))  # fmt: skip
    print(format_table(("network", "party", "ms", "of PyTorch", "quartiles"), rows, align="<<>>>"))


if __name__ == "__main__":
    main()
