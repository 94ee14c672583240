import json

import numpy as np
import pytest

import xpnet
from xpnet import asnumpy
from xpnet.functions import one_hot
from xpnet.nets import TwoLayerNet, evaluation
from xpnet.training import Callback, Trainer, feed
from xpnet.training.run_folder import create_run_folder, save_run
from xpnet.training.run_settings import RunSettings


@pytest.fixture(scope="module")
def data():
    """Two classes on either side of a plane, with a margin: 200 samples to train on, 60 to test on."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((260, 8))
    normal = rng.standard_normal(8)
    t = (x @ normal > 0).astype(int)
    x = (x + 0.3 * np.outer(2 * t - 1, normal)).astype("float32")
    return x[:200], t[:200], x[200:], t[200:]


def trainer(data, device="cpu", **settings):
    rng = np.random.default_rng(0)
    dtype = settings.pop("dtype", "float32")
    net = TwoLayerNet(8, 16, 2, "he", device=device, dtype=dtype, seed=rng)
    defaults = {"epochs": 3, "mini_batch_size": 20, "optimizer_param": {"lr": 0.5}, "verbose": False, "seed": rng}
    return Trainer(net, *data, **{**defaults, **settings})


def test_training_learns(data, device):
    run = trainer(data, device, epochs=30)
    history = run.train()
    assert run.current_iter == run.max_iter == 300
    assert len(run.train_loss_list) == 300
    assert len(run.train_acc_list) == len(run.test_acc_list) == 30
    assert run.test_acc_list[-1] > 0.9
    assert history.evaluations[-1].epoch == 30.0
    assert np.mean(run.train_loss_list[-10:]) < 0.3 * np.mean(run.train_loss_list[:10])
    assert history.evaluations[3].loss == pytest.approx(np.mean(run.train_loss_list[30:40]))


def test_the_same_seed_gives_the_same_run_on_every_device(data, device):
    here, there = trainer(data, dtype="float64"), trainer(data, device, dtype="float64")
    np.testing.assert_allclose(here.train().losses, there.train().losses, rtol=1e-9)
    np.testing.assert_allclose(asnumpy(there.network.params.flat)[:128], here.network.params.flat[:128], rtol=1e-7)
    assert here.test_acc_list == there.test_acc_list


def test_the_trainer_takes_the_steps_of_the_books_loop(data, device):
    x, t, *_ = data
    rng = np.random.default_rng(0)
    net = TwoLayerNet(8, 16, 2, "he", device=device, dtype="float64", seed=rng)
    for index in rng.integers(0, 200, (30, 20)):
        x_batch, t_batch = device.asarray(x[index]), device.asarray(t[index])
        grads = net.gradient(x_batch, t_batch)
        for key in ("W1", "b1", "W2", "b2"):
            net.params[key] -= 0.5 * grads[key]
    run = trainer(data, device, dtype="float64")
    run.train()
    np.testing.assert_allclose(asnumpy(run.network.params.flat), asnumpy(net.params.flat), rtol=1e-12, atol=1e-15)


def test_a_training_step_neither_synchronizes_nor_transfers(data, cuda, counted):
    run = trainer(data, cuda)
    step = run.network.compile(run.optimizer, 20)
    indices = cuda.asarray(np.arange(60).reshape(3, 20))
    step.run(run.x_train, run.t_train, indices)  # compiles and captures
    with counted() as work:
        for _ in range(2):
            losses = step.run(run.x_train, run.t_train, indices)
    assert (work["synchronizations"], work["copies_to_device"], work["copies_to_host"]) == (0, 2, 0)  # learning rates
    assert losses.shape == (3,)
    run = trainer(data, cuda, steps=300, mini_batch_size=1)
    run._run(200)
    with counted() as work:
        run._run(
            100
        )  # indices and learning rates go there in two copies, losses come back in one; the host does not wait
    assert (work["synchronizations"], work["copies_to_device"], work["copies_to_host"]) == (0, 2, 1)


def test_losses_are_looked_at_a_window_late_on_a_gpu_and_all_of_them_before_an_evaluation(data, device):
    behind, saved = [], []

    class Watch(Callback):
        def on_steps(self, trainer):
            behind.append(trainer.current_iter - len(trainer.history.losses))
            if len(behind) == 2:
                saved.append(trainer.state())

        def on_evaluation(self, trainer):
            assert len(trainer.history.losses) == trainer.current_iter

    run = trainer(data, device, steps=50, callbacks=[Watch()])
    run.REPORT_INTERVAL = 2
    run.train()
    assert set(behind) == ({0} if str(device) == "cpu" else {0, 2})
    assert len(saved[0]["losses"]) == saved[0]["current_iter"]
    assert len(run.history.losses) == 50


@pytest.mark.parametrize("labels", ["class ids", "one-hot"])
def test_data_that_do_not_fit_a_gpu_go_there_in_parts(data, cupy, monkeypatch, labels):
    x, t, x_test, t_test = data
    if labels == "one-hot":
        t, t_test = np.eye(2, dtype="float32")[t], np.eye(2, dtype="float32")[t_test]
    settings = {"epochs": 12, "optimizer": "adam", "optimizer_param": None}
    fitting = trainer((x, t, x_test, t_test), "cuda", **settings)
    fitting.train()
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (x.nbytes, 80 * 2**30))
    monkeypatch.setattr(feed, "STEPS_PER_EXECUTION", 4)
    monkeypatch.setattr(evaluation, "BATCH", 70)
    streamed = trainer((x, t, x_test, t_test), "cuda", **settings)
    assert isinstance(streamed.x_train, np.ndarray)
    assert not isinstance(streamed.x_test, np.ndarray)  # a third as large
    streamed.train()
    np.testing.assert_array_equal(asnumpy(streamed.network.params.flat), asnumpy(fitting.network.params.flat))
    assert streamed.train_loss_list == fitting.train_loss_list
    assert streamed.train_acc_list == pytest.approx(fitting.train_acc_list, abs=1e-12)
    assert streamed.test_acc_list == fitting.test_acc_list


def test_training_on_a_second_device_stays_there(data, second):
    run = trainer(data, second)
    run.train()
    assert run.network.params.flat.device.id == 1


def test_an_epoch_longer_than_the_interval_between_reports_ends_on_time(data):
    x, t, x_test, t_test = data
    run = trainer((x[:150], t[:150], x_test, t_test), mini_batch_size=1, steps=320)
    run.train()
    assert [e.step for e in run.history.evaluations] == [150, 300, 320]


def test_steps_and_epochs_count_as_in_the_book(data):
    run = trainer(data, steps=25)
    run.train()
    assert run.iter_per_epoch == 10
    assert [e.step for e in run.history.evaluations] == [10, 20, 25]
    assert [e.epoch for e in run.history.evaluations] == [1.0, 2.0, 2.5]
    run = trainer(data, mini_batch_size=500, epochs=2)  # more than there are: one step an epoch
    run.train()
    assert run.max_iter == 2


def test_accuracies_on_a_part_of_the_samples(data):
    run = trainer(data, evaluate_sample_num_per_epoch=7)
    run.train()
    x, t, *_ = data
    assert run.train_acc_list[-1] == run.network.accuracy(x[:7], t[:7])


def test_verbose_prints_a_line_per_epoch(data, capsys):
    trainer(data, verbose=True).train()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["epoch", "step", "loss", "train", "acc", "test", "acc", "seconds"]
    assert [line.split()[:2] for line in lines[1:]] == [["1.00", "10"], ["2.00", "20"], ["3.00", "30"]]


def test_labels_may_be_one_hot_and_data_of_another_dtype(data, device):
    x, t, x_test, t_test = data
    twin = trainer((x.astype("float64"), one_hot(t, 2), x_test.tolist(), t_test.tolist()), device)
    losses = twin.train().losses
    assert twin.x_train.dtype == "float32"
    np.testing.assert_allclose(losses, trainer(data, device).train().losses, rtol=1e-4)


def test_an_interrupted_run_goes_on_where_it_was(data):
    class Interrupt(Callback):
        def on_steps(self, trainer):
            if trainer.current_iter == 20:
                raise KeyboardInterrupt

    whole, parts = trainer(data), trainer(data, callbacks=[Interrupt()])
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        parts.train()
    assert (parts.current_iter, len(parts.history.losses)) == (20, 20)
    parts.callbacks.clear()
    parts.train()
    assert parts.history.losses == whole.history.losses
    np.testing.assert_array_equal(parts.network.params.flat, whole.network.params.flat)


def test_an_interrupt_between_steps_keeps_the_steps_done(data, monkeypatch):
    run = trainer(data)
    update, calls = run.optimizer.update, []

    def interrupted(params, grads):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        update(params, grads)

    monkeypatch.setattr(run.optimizer, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert (run.current_iter, len(run.history.losses)) == (4, 4)


def test_an_evaluation_that_was_interrupted_is_made_up_for(data, monkeypatch):
    run = trainer(data, steps=15)
    evaluate, calls = run.network.evaluate, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) in {1, 4}:  # of the first epoch, and of the end
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(run.network, "evaluate", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run.train()
    run.train()
    run.train()  # nothing is left to do
    assert [e.step for e in run.history.evaluations] == [10, 15]
    assert len(run.history.losses) == 15


def test_divergence_is_an_error_that_names_the_step(data, device):
    run = trainer(data, device, optimizer_param={"lr": 1e30})
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step \d; the network keeps its par"):
        run.train()
    assert np.isfinite(asnumpy(run.network.params.flat)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"mini_batch_size": 2.5}, "mini_batch_size must be a positive integer, got 2.5"),
        ({"steps": -1}, "steps must be a positive integer"),
        ({"evaluate_sample_num_per_epoch": 0}, "evaluate_sample_num_per_epoch must be"),
        ({"optimizer": "sdg"}, "optimizer must be one of"),
        ({"t_train": np.zeros(199, int)}, "x_train and t_train must be equally many, got 200 and 199"),
        ({"t_train": np.full(200, 2)}, r"class ids must lie in \[0, 2\), got ids from 2 to 2"),
        ({"t_test": np.full(60, -1)}, r"class ids must lie in \[0, 2\)"),
        ({"t_test": np.zeros(60)}, "class ids must be integers"),
        ({"x_train": np.zeros((200, 9))}, r"Affine1 expected x of shape \(N, 8\)"),
        ({"x_test": np.zeros((0, 8)), "t_test": np.zeros(0, int)}, "x_test is empty"),
    ],
)
def test_bad_settings_and_data_are_refused_at_once(data, change, message):
    arguments = dict(zip(("x_train", "t_train", "x_test", "t_test"), data, strict=True)) | change
    with pytest.raises(ValueError, match=message):
        Trainer(TwoLayerNet(8, 4, 2, seed=0), **arguments)


@pytest.mark.parametrize("callback", [Callback, object(), "print"])
def test_what_is_no_callback_is_refused_before_the_first_step(data, callback):
    with pytest.raises(TypeError, match=r"callbacks must be instances of xpnet\.training\.Callback, or functions that"):
        Trainer(TwoLayerNet(8, 4, 2, seed=0), *data, callbacks=[callback])


class TestRunFolder:
    def test_holds_everything_a_run_was_and_did(self, data, device, tmp_path):
        run = trainer(data, device)
        run.train()
        settings = RunSettings.of("mlp", lr=0.5)
        folder = create_run_folder(tmp_path / "new" / "runs", settings)
        assert RunSettings.load(folder) == settings
        assert {*save_run(folder, run, {"lr": 0.5}), "settings.json"} == {f.name for f in folder.iterdir()}
        report = json.loads((folder / "run.json").read_text())
        assert report["settings"] == {"lr": 0.5}
        assert report["steps"] == 30
        assert report["complete"]
        assert report["backend"] == (run.backend if device.name == "cpu" else "cupy")
        assert ("numba" in report["environment"]) or run.backend == "numpy"
        assert report["test_accuracy"] == run.test_acc_list[-1]
        assert report["environment"]["numpy"] == np.__version__
        assert report["environment"]["device"] == device.name
        history = json.loads((folder / "history.json").read_text())
        assert history["losses"] == run.train_loss_list
        assert history["evaluations"]["test_accuracy"] == run.test_acc_list
        twin = xpnet.load(folder / "model.safetensors")
        np.testing.assert_array_equal(twin.params["W1"], asnumpy(run.network.params["W1"]))

    def test_folders_are_never_shared(self, tmp_path):
        assert len({create_run_folder(tmp_path, RunSettings.of("mlp")) for _ in range(5)}) == 5

    def test_a_file_in_the_way_is_an_error(self, tmp_path):
        (tmp_path / "runs").write_text("a file")
        with pytest.raises(OSError, match=r"(Not a directory|File exists)"):
            create_run_folder(tmp_path / "runs", RunSettings.of("mlp"))

    def test_what_is_not_finite_is_null_in_json(self, data, tmp_path):
        run = trainer(data, optimizer_param={"lr": 1e30})
        with pytest.raises(FloatingPointError):
            run.train()
        save_run(tmp_path, run, {})
        assert None in json.loads((tmp_path / "history.json").read_text())["losses"]
        assert json.loads((tmp_path / "run.json").read_text())["test_accuracy"] is None

    def test_learning_curves_are_drawn(self, data, tmp_path):
        pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
        run = trainer(data, epochs=30)
        run.train()
        assert "learning_curves.png" in save_run(tmp_path, run, {}, plot=True)
        assert (tmp_path / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_environment_describes_a_gpu(cuda):
    from xpnet import environment

    runtime = cuda.xp.cuda.runtime
    facts = environment.describe(cuda)
    assert facts["cuda"]["gpu"] == runtime.getDeviceProperties(0)["name"].decode()
    version = runtime.driverGetVersion()
    assert facts["cuda"]["driver_cuda"] == f"{version // 1000}.{version % 1000 // 10}"
    numbers = range(runtime.getDeviceCount())
    assert [name for name, _ in environment.describe_devices()] == ["cpu", *(f"cuda:{n}" for n in numbers)]


def test_the_backend_may_be_chosen(data):
    assert trainer(data, backend="numpy").backend == "numpy"
    pytest.importorskip("numba", reason="numba is not installed")
    assert trainer(data, backend="numba").backend == "numba"
    with pytest.raises(ValueError, match="backend must be one of 'numpy', 'numba', got 'jax'"):
        trainer(data, backend="jax")


@pytest.mark.parametrize(("samples", "batch"), [(150, 100), (199, 100), (60, 50), (30, 50), (200, 20)])
def test_epochs_are_the_books_number_of_steps(data, samples, batch):
    x, t = data[0][:samples], data[1][:samples]
    run = trainer((x, t, x, t), epochs=7, mini_batch_size=batch)
    history = run.train()
    assert run.max_iter == run.current_iter == int(7 * max(samples / batch, 1))
    assert [e.step for e in history.evaluations] == [int(n * max(samples / batch, 1)) for n in range(1, 8)]
    assert history.evaluations[-1].epoch == pytest.approx(run.max_iter / max(samples / batch, 1))


def test_the_run_of_a_regression_can_be_saved(tmp_path, rng):
    from xpnet.layers import Affine, IdentityWithLoss
    from xpnet.nets import Sequential

    x = rng.random((40, 3), dtype="float32")
    net = Sequential([Affine.from_sizes(3, 1, rng=0)], IdentityWithLoss())
    run = Trainer(net, x, x[:, :1], x, x[:, :1], epochs=2, mini_batch_size=10, verbose=False)
    run.train()
    assert save_run(tmp_path, run, {}) == ["model.safetensors", "history.json", "run.json"]
    saved = json.loads((tmp_path / "run.json").read_text())
    assert (saved["test_accuracy"], saved["complete"]) == (None, True)
    assert saved["seconds"] > 0
