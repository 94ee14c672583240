import numpy as np
import pytest

from xpnet.datasets import DatasetError, Windows, load_text
from xpnet.datasets.text import from_text, to_text
from xpnet.device import asnumpy
from xpnet.nets import LanguageModel
from xpnet.optimizers import SGD
from xpnet.training import Trainer
from xpnet.training.sampling import get_sampler
from xpnet.training.sources import WindowSource


def test_the_default_text_is_in_the_package():
    data = load_text("alice", 64)
    assert to_text(data.x_train[:2]).split()[:5] == ["ALICE'S", "ADVENTURES", "IN", "WONDERLAND", "Lewis"]
    assert data.x_train.shape[1:] == data.x_test.shape[1:] == (64,)
    np.testing.assert_array_equal(data.t_train.reshape(-1)[:-1], data.x_train.reshape(-1)[1:])


def test_a_file_is_cut_into_windows(tmp_path):
    file = tmp_path / "any.bin"
    file.write_bytes(bytes(range(100)))
    data = load_text(file, 4)
    np.testing.assert_array_equal(data.x_train[:2], [[0, 1, 2, 3], [4, 5, 6, 7]])
    np.testing.assert_array_equal(data.t_train[:2], [[1, 2, 3, 4], [5, 6, 7, 8]])
    np.testing.assert_array_equal(data.x_test, [[90, 91, 92, 93], [94, 95, 96, 97]])
    assert data.windows.starts == 86


def test_texts_that_cannot_be_cut_are_named(tmp_path):
    (tmp_path / "short").write_bytes(b"0123456789")
    with pytest.raises(DatasetError, match="expected at least 12 bytes, for a window in training and test set, got 10"):
        load_text(tmp_path / "short", 5)
    with pytest.raises(DatasetError, match=r"nowhere: No such file .*; a text is a file, or a name \(alice\)"):
        load_text("nowhere", 5)
    with pytest.raises(TypeError, match="source must be a name or a path, got int"):
        load_text(3, 5)
    with pytest.raises(ValueError, match="a window of 5 ids and the one behind it need 6 ids, got 5"):
        Windows(np.zeros(5, "uint8"), 5)


def test_text_and_bytes():
    assert to_text(from_text("h\u00e9 \U0001f600")) == "h\u00e9 \U0001f600"
    assert to_text(np.array([104, 255])) == "h\\xff"


class Seen(LanguageModel):
    """Notes the minibatches."""

    def predict(self, x, train=False):
        if train:
            SEEN.append(asnumpy(x).copy())
        return super().predict(x, train)


SEEN = []


def minibatches(device, sampling, steps, batch_size=2):
    SEEN.clear()
    net = Seen(32, 2, cell="rnn", device=device, seed=0)
    windows = Windows(np.arange(25, dtype="uint8"), 4)
    trainer = Trainer(
        net, windows, mini_batch_size=batch_size, optimizer=SGD(), steps=steps, sampling=sampling, verbose=False,
        seed=0, backend="numpy", threads=1,
    )  # fmt: skip
    trainer.train()
    return trainer, np.array(SEEN)


def test_random_draws_cut_the_text_anywhere(device):
    if device.name != "cpu":
        pytest.skip("a captured step does not call predict")
    trainer, found = minibatches(device, "random", 60)
    assert set(found[:, :, 0].ravel()) == set(range(21))
    np.testing.assert_array_equal(found - found[:, :, :1], np.broadcast_to(np.arange(4), found.shape))
    assert trainer.iter_per_epoch == 3
    assert [e.step for e in trainer.history.evaluations[:2]] == [3, 6]


def test_in_order_each_row_goes_on_where_it_ended(device):
    if device.name != "cpu":
        pytest.skip("a captured step does not call predict")
    _, found = minibatches(device, "in-order", 4)
    np.testing.assert_array_equal(found[:, :, 0], [[0, 12], [4, 16], [8, 20], [0, 12]])
    with pytest.raises(ValueError, match="sampling in order needs at least 7 samples for a minibatch, got 6"):
        minibatches(device, "in-order", 1, batch_size=7)


def test_windows_have_their_own_labels(device):
    net = LanguageModel(32, 2, device=device)
    with pytest.raises(ValueError, match="x_train is Windows, which have their own labels; leave out t_train"):
        Trainer(net, Windows(np.arange(25), 4), np.zeros(6, int))


def test_windows_are_always_cut_into_the_arrays_that_a_graph_has_captured(cuda, counted):
    windows, rng = Windows(np.arange(90, dtype="uint8") % 17, 4), np.random.default_rng(0)
    source = WindowSource(cuda, windows, get_sampler("random", rng, len(windows), 3, windows.starts), 3)
    step = LanguageModel(17, 4, device=cuda, seed=0).compile(SGD(), 3)
    with counted() as work:
        for _ in range(6):
            source.run(step, cuda.xp.zeros(1, "float32"))
    assert work["graph_launches"] == 4  # behind two steps to warm up


@pytest.mark.parametrize("sampling", ["random", "shuffled", "in-order"])
def test_a_text_run_that_goes_on_is_the_run_without_a_break(device, sampling):
    def trainer(steps):
        net = LanguageModel(32, 4, device=device, seed=0)
        return Trainer(
            net, Windows(np.arange(90) % 17, 4), mini_batch_size=3, steps=steps, sampling=sampling, verbose=False,
            seed=1,
        )  # fmt: skip

    whole, first, second = trainer(13), trainer(5), trainer(13)
    whole.train()
    first.train()
    second.load_state(first.state())
    second.train()
    np.testing.assert_array_equal(asnumpy(second.network.params.flat), asnumpy(whole.network.params.flat))
