"""Where minibatches come from, what is evaluated, and what callbacks do with it."""

import csv
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.layers import Affine, IdentityWithLoss, Relu, SoftmaxWithLoss
from xpnet.nets import Sequential, TwoLayerNet
from xpnet.training import (
    Callback,
    CSVLogger,
    EarlyStopping,
    Evaluation,
    JSONLLogger,
    ReduceLROnPlateau,
    Trainer,
)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((230, 8)).astype("float32")
    return x, (x[:, 0] + x[:, 1] > 0).astype(int)


def trainer(data, *test, device="cpu", net=None, **settings):
    x, t = data
    net = net or TwoLayerNet(8, 10, 2, "he", seed=0, device=device)
    return Trainer(net, x, t, *test, **{"verbose": False, "seed": 1, "mini_batch_size": 20, **settings})


def regression(device="cpu"):
    return Sequential.mlp([8, 10, 1], loss=IdentityWithLoss(), seed=0, device=device)


class TestSets:
    def test_training_needs_no_test_set(self, data, device):
        run = trainer(data, epochs=2, device=device)
        run.train()
        assert list(run.history.evaluations[-1].metrics) == ["train_loss", "train_accuracy"]
        assert math.isnan(run.test_acc_list[-1])
        with pytest.raises(ValueError, match="x_test and t_test go together: pass both, or none"):
            trainer(data, data[0], None)

    def test_losses_and_metrics_of_all_sets(self, data, device):
        x, t = data
        run = trainer((x[:150], t[:150]), x[150:190], t[150:190], validation_data=(x[190:], t[190:]), device=device)
        run.train()
        metrics, net, to = run.history.evaluations[-1].metrics, run.network, run.network.device.asarray
        for name, part in {"train": slice(150), "test": slice(150, 190), "validation": slice(190, None)}.items():
            assert metrics[f"{name}_accuracy"] == pytest.approx(net.accuracy(to(x[part]), to(t[part])))
            assert metrics[f"{name}_loss"] == pytest.approx(float(net.loss(to(x[part]), to(t[part]))), rel=1e-5)

    @pytest.mark.parametrize("outputs", [1, 3])
    def test_rmse_and_r2_of_a_regression_are_scikit_learns(self, rng, device, outputs):
        x, t = rng.standard_normal((70, 8)), rng.standard_normal((70, outputs))
        t += 0.5 * x[:, :outputs]
        net = Sequential.mlp([8, 10, outputs], loss=IdentityWithLoss(), seed=0, device=device, dtype="float64")
        metrics = net.evaluate(device.asarray(x), device.asarray(t))
        y = asnumpy(net.predict(device.asarray(x)))
        sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
        assert metrics["rmse"] == pytest.approx(sk.mean_squared_error(t, y) ** 0.5)
        assert metrics["r2"] == pytest.approx(sk.r2_score(t, y))
        assert metrics["loss"] == pytest.approx(float(net.loss(device.asarray(x), device.asarray(t))))

    def test_constant_targets_and_no_samples(self):
        net = regression()
        assert net.evaluate(np.zeros((3, 8)), np.ones((3, 1)))["r2"] == 0.0
        zero = net.predict(np.zeros((3, 8)))
        assert net.evaluate(np.zeros((3, 8)), zero)["r2"] == 1.0
        assert all(math.isnan(value) for value in net.evaluate(np.zeros((0, 8)), np.zeros((0, 1))).values())

    def test_the_lines_of_a_regression(self, data, capsys):
        x, _ = data
        trainer((x, x[:, 0]), x[:30], x[:30, 0], net=regression(), epochs=1, verbose=True).train()
        header, line = capsys.readouterr().out.splitlines()
        assert header.split() == [
            "epoch",
            "step",
            "loss",
            "train",
            "rmse",
            "train",
            "r2",
            "test",
            "rmse",
            "test",
            "r2",
            "seconds",
        ]
        assert len(line.split()) == 8

    def test_ignored_labels_are_left_out_of_loss_and_accuracy(self, rng):
        x, t = rng.standard_normal((2300, 8)), rng.integers(0, 2, 2300)
        t[:1500] = -1  # more than a batch of the evaluation has
        layers = [Affine.from_sizes(8, 5, std="he", rng=0), Relu(), Affine.from_sizes(5, 2, std="he", rng=1)]
        net = Sequential(layers, SoftmaxWithLoss(ignore_index=-1), dtype="float64")
        found = net.evaluate(x, t)
        expected = {"loss": float(net.loss(x[1500:], t[1500:])), "accuracy": net.accuracy(x[1500:], t[1500:])}
        assert found == pytest.approx(expected, rel=1e-12)


class TestBatches:
    def batches(self, data, size=20):
        x, t = data
        return [(x[i : i + size], t[i : i + size]) for i in range(0, len(x), size)]

    def test_an_iterable_of_minibatches_takes_the_same_steps_as_compiled_ones(self, data, device):
        batches = self.batches(data)
        run = trainer((batches, None), epochs=2, device=device)
        run.train()
        other = TwoLayerNet(8, 10, 2, "he", seed=0, device=device)
        step = other.compile(run.optimizer.__class__(0.01), 20)
        to = device.asarray
        losses = [
            float(step.run(to(x), to(t), device.xp.arange(len(x))[None])[0]) for _ in range(2) for x, t in batches
        ]
        np.testing.assert_allclose(run.history.losses, losses, rtol=1e-5)
        assert (run.max_iter, run.iter_per_epoch, run.mini_batch_size) == (24, 12, 20)
        assert [e.step for e in run.history.evaluations] == [12, 24]
        assert [e.epoch for e in run.history.evaluations] == [1.0, 2.0]

    def test_a_data_loader_of_pytorch(self, data):
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        x, t = map(torch.from_numpy, data)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, t), batch_size=50, shuffle=True)
        run = trainer((loader, None), *data, epochs=30, optimizer_param={"lr": 0.5})
        run.train()
        assert run.test_acc_list[-1] > 0.9
        assert run.current_iter == 30 * 5

    def test_an_iterator_ends_for_good(self, data):
        run = trainer((iter(self.batches(data)), None), epochs=1)
        run.train()
        assert (run.current_iter, run.max_iter, run.iter_per_epoch) == (12, None, None)
        run = trainer((iter(self.batches(data)), None), epochs=3)
        with pytest.raises(ValueError, match="the iterator x_train ended after 1 epochs; pass an iterable that can be"):
            run.train()
        assert run.current_iter == 12

    def test_weights_in_minibatches(self, data):
        weighted = [(a, b, np.where(b > 0, 2.0, 0.0)) for a, b in self.batches(data)]
        doubled = [(a[b > 0], b[b > 0]) for a, b in self.batches(data)]
        runs = [trainer((batches, None), epochs=1) for batches in (weighted, doubled)]
        for run in runs:
            run.train()
        np.testing.assert_allclose(runs[0].history.losses, runs[1].history.losses, rtol=1e-4)

    @pytest.mark.parametrize("stopped", [1, 5, 12, 17])
    def test_an_interrupted_run_goes_on_at_its_place(self, data, stopped):
        batches = self.batches(data)
        whole = trainer((batches, None), epochs=2)
        whole.train()

        class Interrupted(list):
            taken = 0

            def __iter__(self):
                for batch in super().__iter__():
                    Interrupted.taken += 1
                    if Interrupted.taken == stopped + 2:  # fetched ahead, while an earlier step runs
                        raise KeyboardInterrupt
                    yield batch

        run = trainer((Interrupted(batches), None), epochs=2)
        with pytest.raises(KeyboardInterrupt):
            run.train()
        state = run.state()
        resumed = trainer((batches, None), epochs=2)
        resumed.load_state(state)
        assert resumed.current_iter == run.current_iter
        resumed.train()
        np.testing.assert_array_equal(resumed.network.params.flat, whole.network.params.flat)

    @pytest.mark.parametrize(
        ("batches", "kind", "message"),
        [
            ([], ValueError, "the iterable x_train has no minibatches"),
            ([1, 2], TypeError, r"must be \(x, t\) or \(x, t, sample_weight\), got int"),
            ([(np.zeros((2, 8)),)], TypeError, r"must be \(x, t\) or"),
            ([(np.zeros((2, 8)), [0])], ValueError, "x and t must be equally many, got 2 and 1"),
            ([(np.zeros((2, 8)), [0, 5])], ValueError, r"class ids must lie in \[0, 2\)"),
            (np.zeros((5, 8)), ValueError, "t_train is missing: x_train is ndarray, no iterable of minibatches"),
            (7, ValueError, "t_train is missing: x_train is int"),
        ],
    )
    def test_what_is_no_minibatch_is_refused_at_once(self, batches, kind, message):
        with pytest.raises(kind, match=message):
            trainer((batches, None))


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("sampling", ["random", "shuffled"])
def test_mapped_arrays_are_read_a_few_minibatches_at_a_time(tmp_path, rng, dtype, sampling):
    x = (rng.random((500, 8)) * 200).astype(dtype)
    t = (x[:, 0] > x[:, 1]).astype(int)
    mapped = np.memmap(tmp_path / "x.dat", dtype, "w+", shape=x.shape)
    mapped[:] = x
    runs = [trainer((data, t), epochs=3, sampling=sampling, backend="numpy") for data in (mapped, x)]
    for run in runs:
        run.train()
    assert runs[0].x_train.dtype == dtype  # not converted, which would read it all
    assert np.shares_memory(runs[0].x_train, mapped)
    np.testing.assert_allclose(runs[0].history.losses, runs[1].history.losses, rtol=1e-4)


def test_weights_of_samples(data, device):
    """A weight of zero is as if the sample were not there, and whole weights repeat samples."""
    x, t = data
    w = (np.arange(230) % 3 > 0).astype("float32")
    run = trainer(data, device=device, epochs=3, sample_weight=w, backend=None)
    run.train()
    net, indices = TwoLayerNet(8, 10, 2, "he", seed=0, device=device), np.random.default_rng(1)
    drawn = indices.integers(0, 230, (run.max_iter, 20))
    step = net.compile(type(run.optimizer)(0.01), 20)
    to = device.asarray
    losses = step.run(to(x), to(t), to(drawn), sample_weight=to(w))
    np.testing.assert_allclose(run.history.losses, asnumpy(losses), rtol=1e-6)
    with pytest.raises(ValueError, match="x_train and t_train and sample_weight must be equally many, got 230 and"):
        trainer(data, sample_weight=w[:5])


class Recorder(Callback):
    def __init__(self):
        self.events = []

    def on_start(self, trainer):
        self.events.append("start")

    def on_steps(self, trainer):
        self.events.append(trainer.current_iter)

    def on_evaluation(self, trainer):
        self.events.append("evaluation")

    def on_end(self, trainer):
        self.events.append("end" if trainer.finished else "interrupted")


class TestCallbacks:
    def test_are_called_in_order(self, data):
        recorder, seen = Recorder(), []
        run = trainer(data, steps=12, callbacks=[recorder, lambda trainer: seen.append(trainer.current_iter)])
        run.train()
        assert recorder.events == ["start", 11, "evaluation", 12, "evaluation", "end"]
        assert seen == [11, 12]

    def test_early_stopping_restores_the_best_parameters(self, data):
        x, t = data
        flipped = 1 - t  # what is learned makes the validation loss worse
        stopping, kept = EarlyStopping(patience=2), []
        run = trainer(
            data,
            validation_data=(x, flipped),
            epochs=50,
            callbacks=[stopping, lambda trainer: kept.append(trainer.network.params.flat.copy())],
            optimizer_param={"lr": 0.5},
        )
        run.train()
        losses = [e.metrics["validation_loss"] for e in run.history.evaluations]
        assert len(losses) == 3
        assert run.finished
        np.testing.assert_array_equal(run.network.params.flat, kept[int(np.argmin(losses))])

    def test_early_stopping_keeps_the_last_parameters_on_request(self, data):
        run = trainer(data, *data, epochs=4, callbacks=[EarlyStopping("test_accuracy", 0, restore_best=False)])
        run.train()
        assert len(run.history.evaluations) <= 4

    def test_a_metric_that_is_not_measured_is_named(self, data):
        run = trainer(data, epochs=1, callbacks=[EarlyStopping("validation_loss")])
        with pytest.raises(ValueError, match="monitor must be one of step, epoch, loss, seconds, train_loss, train"):
            run.train()

    def test_the_rate_is_reduced_on_a_plateau(self, data):
        x, t = data
        callback = ReduceLROnPlateau("validation_loss", factor=0.5, patience=2, min_lr=0.05)
        rates = []
        run = trainer(
            data,
            validation_data=(x, 1 - t),
            epochs=9,
            callbacks=[callback, lambda trainer: rates.append(trainer.optimizer.lr)],
            optimizer_param={"lr": 0.2},
        )
        run.train()
        assert rates == [0.2, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05]
        with pytest.raises(ValueError, match="ReduceLROnPlateau needs a constant learning rate"):
            trainer(data, optimizer_param={"lr": lambda step: 0.1}, callbacks=[ReduceLROnPlateau()]).train()

    def test_csv_files_have_a_row_per_evaluation(self, data, tmp_path):
        file = tmp_path / "history.csv"
        run = trainer(data, *data, epochs=3, callbacks=[CSVLogger(file)])
        run.train()
        with open(file, newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [int(row["step"]) for row in rows] == [e.step for e in run.history.evaluations]
        assert float(rows[-1]["test_accuracy"]) == run.test_acc_list[-1]

    def test_jsonl_files_have_a_line_per_evaluation_as_it_comes(self, data, tmp_path):
        file, seen = tmp_path / "history.jsonl", []

        def read(_trainer):
            seen.append([json.loads(line)["step"] for line in file.read_text().splitlines()])

        run = trainer(data, *data, epochs=3, callbacks=[JSONLLogger(file), read])
        run.train()
        steps = [e.step for e in run.history.evaluations]
        assert seen == [steps[: i + 1] for i in range(len(steps))]
        assert [json.loads(line) for line in file.read_text().splitlines()] == [
            e.columns() for e in run.history.evaluations
        ]

    def test_a_run_that_goes_on_continues_its_jsonl_file_from_the_checkpoint(self, data, tmp_path):
        file = tmp_path / "history.jsonl"
        states = []
        killed = trainer(data, epochs=4, callbacks=[JSONLLogger(file), lambda t: states.append(t.state())])
        killed.train()
        lines = []

        def count(_trainer):
            lines.append(len(file.read_text().splitlines()))

        resumed = trainer(data, epochs=4, callbacks=[JSONLLogger(file), count])
        resumed.load_state(states[1])
        resumed.train()
        assert lines == [3, 4]
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert [row["step"] for row in rows] == [e.step for e in killed.history.evaluations]

    def test_numbers_that_json_does_not_have_are_null(self, data, tmp_path):
        file = tmp_path / "history.jsonl"
        run = trainer(data, epochs=1, callbacks=[JSONLLogger(file)])
        run.history.evaluations.append(Evaluation(0, 0.0, float("nan"), 1.0, {"train_loss": float("inf")}))
        run.train()
        first = json.loads(file.read_text().splitlines()[0])
        assert first == {"step": 0, "epoch": 0.0, "loss": None, "seconds": 1.0, "train_loss": None}

    def test_event_files_for_tensorboard(self, data, tmp_path):
        pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
        from xpnet.training import TensorBoard

        trainer(data, epochs=2, callbacks=[TensorBoard(tmp_path)]).train()
        (file,) = tmp_path.iterdir()
        assert b"train_accuracy" in file.read_bytes()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: EarlyStopping(patience=-1), "patience must be a whole number of evaluations, got -1"),
            (lambda: EarlyStopping(min_delta=-0.1), "min_delta must be finite and not negative"),
            (lambda: ReduceLROnPlateau(factor=1.0), r"factor must lie in \(0, 1\), got 1.0"),
        ],
    )
    def test_bad_settings_are_refused(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


def test_no_memory_names_the_size_of_the_minibatch(data, monkeypatch):
    run = trainer(data, steps=5)

    def full(*_arguments):
        raise MemoryError("40 GB")

    monkeypatch.setattr(run.source, "run", full)
    with pytest.raises(MemoryError, match=r"cpu has no memory for minibatches of 20 samples; lower mini_batch_size"):
        run.train()


def test_a_gpu_without_memory_names_the_size_of_the_minibatch(counted, cuda):
    """On the stand-in for CUDA, whose memory can be set."""
    code = """if True:
        import numpy as np
        from xpnet.nets import TwoLayerNet
        from xpnet.training import Trainer
        x, t = np.zeros((100, 50), "float32"), np.zeros(100, int)
        run = Trainer(TwoLayerNet(50, 2000, 10, device="cuda", seed=0), x, t, mini_batch_size=4000, verbose=False)
        try:
            run.train()
        except MemoryError as error:
            print(error)
    """
    environment = os.environ | {"CUDA_STAND_IN_MEMORY": str(48 * 2**20)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "cuda:0 has no memory for minibatches of 4000 samples; lower mini_batch_size, or set microbatch (Out of"
    )
