"""A training run for several processes: ``mpiexec -n 2 python parallel_program.py mpi CASE FOLDER``."""

import os
import signal
import sys

import numpy as np

from xpnet.layers import Affine, BatchNormalization, Dropout, IdentityWithLoss, Relu, Residual, SoftmaxWithLoss
from xpnet.nets import Sequential
from xpnet.optimizers import Adam, Momentum
from xpnet.parallel import communicator, sum_in_float16
from xpnet.training import Trainer


def affine(n, m, seed):
    return Affine.from_sizes(n, m, std=0.5, rng=seed)


def plain(seed):
    return [affine(6, 8, seed), Relu(), affine(8, 3, seed + 1)]


def dropped(seed):
    return [affine(6, 8, seed), Relu(), Dropout(0.3, seed=seed), Residual(affine(8, 8, seed)), affine(8, 3, seed)]


def normalized(seed):
    return [affine(6, 8, seed), BatchNormalization(np.ones(8), np.zeros(8)), Relu(), affine(8, 3, seed)]


CASES = {
    "uneven shards": (plain, SoftmaxWithLoss, 25, None),
    "fewer samples than ranks": (plain, SoftmaxWithLoss, 10, None),  # the last minibatch of 103 has 3
    "weights": (plain, SoftmaxWithLoss, 25, "weights"),
    "ignored labels": (plain, lambda: SoftmaxWithLoss(ignore_index=2), 25, None),
    "dropout": (dropped, SoftmaxWithLoss, 10, None),
    "batch normalization": (normalized, SoftmaxWithLoss, 10, None),
    "microbatches": (dropped, SoftmaxWithLoss, 25, "weights"),
    "regression": (plain, IdentityWithLoss, 25, None),
}
"""Layers, loss, minibatch size and weights by name."""


def trainer_of(case, ranks, callbacks=(), epochs=3):
    """Return a trainer; each rank begins with other parameters and draws, which rank 0's replace."""
    layers, loss, size, weights = CASES[case]
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((103, 6)), rng.random(103)
    t = rng.standard_normal((103, 3)) if loss is IdentityWithLoss else rng.integers(0, 3, 103)
    rank = 0 if ranks is None else ranks.rank
    net = Sequential(layers(rank), loss(), dtype="float64")
    rule = Adam(clip_norm=0.5) if case == "weights" else Momentum(0.05)
    return Trainer(
        net,
        x,
        t,
        x,
        t,
        epochs=epochs,
        mini_batch_size=size,
        optimizer=rule,
        sampling="shuffled",
        sample_weight=None if weights is None else w,
        seed=rank,
        callbacks=callbacks,
        backend="numpy",
        verbose=False,
        microbatch=4 if case == "microbatches" and ranks is not None else None,
        communicator=ranks,
    )


def results(trainer):
    """Return what must not depend on the number of processes."""
    measured = list(trainer.history.evaluations[-1].metrics.values())
    buffers = {name: array for name, array in trainer.network.buffers().items() if "running" in name}
    return {
        "params": trainer.network.params.flat,
        "losses": np.array(trainer.history.losses),
        "metrics": measured,
        **buffers,
    }


def end(trainer, how):
    """Let a rank end in some way."""
    if trainer.current_iter > 40:
        if how == "raise":
            raise ValueError("no such thing")
        os.kill(os.getpid(), getattr(signal, how))


def differ(trainer):
    """Change a parameter of one rank."""
    trainer.network.params.flat[0] += 1.0


TERMS = np.random.default_rng(3).standard_normal((4, 1001)) * 10.0 ** np.arange(-20, 20, 10)[:, None]
VECTORS = TERMS.astype("float32")
"""Terms of a sum in float16, one for each rank: from 1e-20, far below float16, to 1e10, far above."""


def reduce_in_float16(ranks, where):
    total = VECTORS[ranks.rank].copy()
    sum_in_float16(ranks, total)
    same = ranks.gather(total.tobytes())
    assert len(set(same)) == 1
    if ranks.rank == 0:
        np.save(f"{where}/float16.npy", total)


def main(kind, case, where):
    ranks = communicator(kind)
    if case == "all":
        reduce_in_float16(ranks, where)
        for name in CASES:
            trainer = trainer_of(name, ranks)
            trainer.train()
            if ranks.rank == 0:
                np.savez(f"{where}/{name}.npz", **results(trainer))
        return
    ending = {"differ": differ}.get(case, lambda trainer: end(trainer, case))
    callbacks = [ending] if ranks.rank == 1 else []
    trainer_of("uneven shards", ranks, callbacks, epochs=10**6).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
