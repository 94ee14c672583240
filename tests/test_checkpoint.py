"""A run that goes on from a checkpoint ends as if it had never stopped; a damaged file is refused by name."""

import errno
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("safetensors", reason="the extra xpnet[cli] is not installed")

from xpnet import asnumpy
from xpnet.nets import MultiLayerNetExtend, TwoLayerNet
from xpnet.training import Callback, Checkpoint, EarlyStopping, Trainer, load_checkpoint, save_checkpoint
from xpnet.training.checkpoint import before


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((230, 8)).astype("float32")
    return x, (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)


def make(data, steps=260, backend="numpy", device="cpu", **settings):
    x, t = data
    if backend == "numba":
        pytest.importorskip("numba")
        net = TwoLayerNet(8, 10, 2, "he", seed=0)
    else:
        options = {"use_dropout": True, "use_batchnorm": True, "dropout_ration": 0.2}
        net = MultiLayerNetExtend(8, [12, 12], 2, **options, seed=0, device=device)
    defaults = {"mini_batch_size": 20, "verbose": False, "seed": 1}
    return Trainer(net, x[:200], t[:200], x[200:], t[200:], steps=steps, backend=backend, **(defaults | settings))


def same(a, b):
    np.testing.assert_array_equal(asnumpy(a.network.params.flat), asnumpy(b.network.params.flat))
    for name, buffer in a.network.buffers().items():
        np.testing.assert_array_equal(asnumpy(buffer), asnumpy(b.network.buffers()[name]))
    assert a.history.losses == b.history.losses
    columns = [[{**e.columns(), "seconds": 0} for e in run.history.evaluations] for run in (a, b)]
    assert columns[0] == columns[1]


class StopAt(Callback):
    """Ends a run as an interrupt does, after some reports."""

    def __init__(self, reports):
        self.left = reports

    def on_steps(self, trainer):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("sampling", ["random", "shuffled"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("reports", [1, 4, 13])
def test_a_run_that_goes_on_ends_as_an_uninterrupted_one(data, tmp_path, optimizer, sampling, backend, reports):
    settings = {"optimizer": optimizer, "sampling": sampling, "backend": backend}
    whole = make(data, **settings)
    whole.train()
    file = tmp_path / "checkpoint.safetensors"
    stopped = make(data, **settings, callbacks=[Checkpoint(file, steps=1), StopAt(reports)])
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = make(data, **settings)
    resumed.load_state(load_checkpoint(file))
    assert resumed.current_iter == stopped.current_iter > 0
    resumed.train()
    same(resumed, whole)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_on_a_device_too(data, device, tmp_path, precision):
    """With the counters of dropout and the loss scale, which lie on the device."""
    whole = make(data, 130, device=device, precision=precision, optimizer="adam")
    whole.train()
    stopped = make(data, 130, device=device, precision=precision, optimizer="adam", callbacks=[StopAt(7)])
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    save_checkpoint(tmp_path / "c.safetensors", stopped.state())
    resumed = make(data, 130, device=device, precision=precision, optimizer="adam")
    resumed.load_state(load_checkpoint(tmp_path / "c.safetensors"))
    resumed.train()
    same(resumed, whole)


def test_a_checkpoint_of_a_gpu_is_loaded_without_cupy(data, cuda, tmp_path):
    file = tmp_path / "c.safetensors"
    save_checkpoint(file, make(data, device=cuda, steps=20).state())
    code = (
        f"import sys; sys.modules['cupy'] = None; from xpnet.training import load_checkpoint; "
        f"print(len(load_checkpoint({str(file)!r})['network']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 6


def test_callbacks_go_on_with_what_they_know(data, tmp_path):
    file = tmp_path / "c.safetensors"
    first = EarlyStopping("test_accuracy", patience=30)
    run = make(data, callbacks=[first, Checkpoint(file, steps=1), StopAt(9)])
    with pytest.raises(KeyboardInterrupt):
        run.train()
    second = EarlyStopping("test_accuracy", patience=30)
    resumed = make(data, callbacks=[second])
    resumed.load_state(load_checkpoint(file))
    assert (second.best, second.waited) == (first.best, first.waited)
    kept = first.state()
    assert any(name.startswith("kept/") for name in kept)
    for name, value in second.state().items():
        np.testing.assert_array_equal(value, kept[name])


def test_a_state_of_another_version_is_refused(data):
    for state in ({}, {**make(data, 20).state(), "version": 0}):
        with pytest.raises(ValueError, match=r"the state has version (None|0), this xpnet reads 1; go on with"):
            make(data, 20).load_state(state)


def test_a_run_that_was_stopped_early_stays_stopped(data, tmp_path):
    file = tmp_path / "c.safetensors"

    def run():
        callbacks = [EarlyStopping("test_accuracy", patience=1, min_delta=0.5), Checkpoint(file, steps=1)]
        return make(data, callbacks=callbacks)

    stopped = run()
    stopped.train()
    assert stopped.current_iter == 20
    resumed = run()
    resumed.load_state(load_checkpoint(file))
    resumed.train()
    same(resumed, stopped)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mini_batch_size": 10}, "the state is of a run with mini_batch_size 20, this one has 10"),
        ({"sampling": "shuffled"}, "the state is of a run with sampling random, this one has shuffled"),
        ({"optimizer": "adam"}, "the state is of a run with optimizer .*SGD.*, this one has .*Adam"),
    ],
)
def test_a_state_of_other_settings_is_refused_and_changes_nothing(data, change, message):
    state, other = make(data, 20).state(), make(data, 20, **change)
    params = other.network.params.flat.copy()
    with pytest.raises(ValueError, match=message):
        other.load_state(state)
    np.testing.assert_array_equal(other.network.params.flat, params)


STATE = {
    "text": "é",
    "nothing": None,
    "list": [1, 2.5, True, {"array": np.arange(3)}],
    "odd": {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": np.zeros((0, 2)),
        "0-d": np.array(7),
    },
    "strided": np.arange(10, dtype="float16")[::2],
    "large": np.array([2**64 - 1], "uint64"),
    "nan": float("nan"),
    "generator": np.random.default_rng(0).bit_generator.state,
    "mersenne": np.random.RandomState(0).get_state(legacy=False),
}


class TestFile:
    def test_holds_numbers_texts_and_arrays_of_any_layout(self, tmp_path):
        file = tmp_path / "c.safetensors"
        save_checkpoint(file, STATE)
        found = load_checkpoint(file)
        assert found.keys() == STATE.keys()
        assert (found["text"], found["nothing"], found["generator"]) == ("é", None, STATE["generator"])
        assert found["list"][:3] == [1, 2.5, True]
        for name in ("fortran", "empty", "0-d"):
            np.testing.assert_array_equal(found["odd"][name], STATE["odd"][name])
            assert found["odd"][name].dtype == STATE["odd"][name].dtype
        np.testing.assert_array_equal(found["strided"], STATE["strided"])
        assert found["large"][0] == 2**64 - 1
        assert np.isnan(found["nan"])
        np.random.default_rng(1).bit_generator.state = found["generator"]
        np.random.RandomState(1).set_state(found["mersenne"])

    def test_has_no_pickle(self, tmp_path):
        file = tmp_path / "c.safetensors"
        save_checkpoint(file, STATE)
        with pytest.raises(pickle.UnpicklingError):
            pickle.loads(file.read_bytes())

    def test_the_one_before_is_kept_and_found(self, tmp_path):
        file = tmp_path / "c.safetensors"
        for number in range(3):
            save_checkpoint(file, {"number": number})
        assert before(file).name == "c-before.safetensors"
        assert load_checkpoint(before(file)) == {"number": 1}
        file.unlink()  # as after a kill between the two steps of a save
        assert load_checkpoint(file) == {"number": 1}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c-before.safetensors"]

    def test_damage_is_named_and_the_one_before_is_offered(self, tmp_path):
        file = tmp_path / "c.safetensors"
        save_checkpoint(file, {"number": 1, "values": np.arange(100.0)})
        save_checkpoint(file, {"number": 2, "values": np.arange(100.0)})
        whole = file.read_bytes()
        tampered = bytearray(whole)
        tampered[-5] ^= 1
        for content in (b"", whole[:7], whole[:100], whole[:-1], bytes(tampered), whole.replace(b": 2", b": 3")):
            file.write_bytes(content)
            with pytest.raises(ValueError, match=rf"{file} is not a whole checkpoint: .*; the checkpoint before it is"):
                load_checkpoint(file)
        before(file).write_bytes(b"")
        with pytest.raises(ValueError, match=r"is not a whole checkpoint: .*; so is the checkpoint before it"):
            load_checkpoint(file)

    @given(st.data())
    def test_no_damage_passes(self, data):
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "c.safetensors"
            save_checkpoint(file, {"number": 1, "values": np.arange(20.0)})
            content = bytearray(file.read_bytes())
            place = data.draw(st.integers(0, len(content) - 1))
            content[place] ^= data.draw(st.integers(1, 255))
            file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
            try:
                found = load_checkpoint(file)
            except ValueError:
                return
            np.testing.assert_array_equal(found.pop("values"), np.arange(20.0))  # a byte of the padding
            assert found == {"number": 1}

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
            load_checkpoint(tmp_path / "nothing.safetensors")


class TestWhen:
    def steps_of(self, data, tmp_path, monkeypatch, **settings):
        saved = []
        monkeypatch.setattr(
            "xpnet.training.checkpoint.save_checkpoint", lambda file, state: saved.append(state["current_iter"])
        )
        make(data, 100, callbacks=[Checkpoint(tmp_path / "c.safetensors", **settings)]).train()
        return saved

    def test_every_so_many_steps_and_at_the_end(self, data, tmp_path, monkeypatch):
        assert self.steps_of(data, tmp_path, monkeypatch, steps=30) == [30, 60, 90, 100]

    def test_every_so_many_seconds(self, data, tmp_path, monkeypatch):
        clock = iter(range(1000))
        monkeypatch.setattr("xpnet.training.checkpoint.time.monotonic", lambda: float(next(clock)))
        many = self.steps_of(data, tmp_path, monkeypatch, seconds=1.0)
        few = self.steps_of(data, tmp_path, monkeypatch, seconds=5.0)
        assert len(many) > len(few) >= 2

    def test_by_default_a_hundred_times_as_rarely_as_one_takes(self, data, tmp_path, monkeypatch):
        """With a clock on which a report takes one second, and a save 45 milliseconds."""
        now = [0.0]

        def report(self, trainer):
            now[0] += 1.0
            on_steps(self, trainer)

        def save(file, state):
            now[0] += 0.045
            saved.append(state["current_iter"])

        saved, on_steps = [], Checkpoint.on_steps
        monkeypatch.setattr("xpnet.training.checkpoint.time.monotonic", lambda: now[0])
        monkeypatch.setattr("xpnet.training.checkpoint.save_checkpoint", save)
        monkeypatch.setattr(Checkpoint, "on_steps", report)
        make(data, 200, callbacks=[Checkpoint(tmp_path / "c.safetensors")]).train()  # twenty reports of ten steps
        assert saved == [10, 60, 110, 160, 200]

    @pytest.mark.parametrize("setting", [{"seconds": 0}, {"steps": -1}, {"seconds": float("nan")}])
    def test_bad_intervals_are_refused(self, setting):
        with pytest.raises(ValueError, match=f"{next(iter(setting))} must be positive"):
            Checkpoint("c.safetensors", **setting)

    def test_a_full_disk_is_a_warning_and_training_goes_on(self, data, tmp_path, monkeypatch):
        file = tmp_path / "c.safetensors"
        run = make(data, 100, callbacks=[Checkpoint(file, steps=50)])
        real, calls = os.fsync, []

        def full(descriptor):
            calls.append(1)
            if len(calls) > 2:  # the first checkpoint, and its folder, are written
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.train()
        assert run.current_iter == 100
        assert {str(w.message) for w in caught} == {
            f"no checkpoint is written: [Errno 28] No space left on device: '{file}'"
        }
        assert load_checkpoint(file)["current_iter"] == 50  # the last one that is whole

    def test_a_diverged_run_leaves_its_last_good_checkpoint(self, data, tmp_path):
        file = tmp_path / "c.safetensors"

        class Explode(Callback):
            def on_steps(self, trainer):
                if trainer.current_iter == 50:
                    trainer.optimizer.lr = 1e30

        run = make(data, 300, backend="numba", callbacks=[Checkpoint(file, steps=10), Explode()])
        with pytest.raises(FloatingPointError, match=r"at step \d+; the network keeps its parameters of step \d+"):
            run.train()
        assert np.isfinite(run.network.params.flat).all()
        assert 50 <= load_checkpoint(file)["current_iter"] <= run.current_iter
        assert np.isfinite(load_checkpoint(file)["losses"]).all()


class TestCommand:
    @pytest.fixture(autouse=True)
    def here(self, tmp_path, monkeypatch):
        pytest.importorskip("typer", reason="the extra xpnet[cli] is not installed")
        monkeypatch.chdir(tmp_path)

    def xpnet(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "xpnet", *map(str, arguments)], capture_output=True, text=True, check=False
        )

    def test_resume_needs_a_run_and_takes_no_other_settings(self):
        found = self.xpnet("train", "--resume", "nowhere")
        assert (found.returncode, found.stdout) == (1, "")
        assert found.stderr == "xpnet: error: nowhere is no folder of a run (xpnet train): it has no settings\n"
        assert self.xpnet("train", "--steps", 20).returncode == 0
        (folder,) = Path("runs").iterdir()
        found = self.xpnet("train", "--resume", folder, "--steps", 40, "--lr", 1)
        assert found.stderr == (f"xpnet: error: --resume takes the settings from {folder}; leave out --lr, --steps\n")
        (folder / "settings.json").write_text("{}")
        found = self.xpnet("train", "--resume", folder)
        assert "settings.json holds no settings of a run of this version of xpnet" in found.stderr
        assert found.stderr.count("\n") == 1

    def test_two_processes_do_not_train_in_one_folder(self):
        from xpnet.training.run_folder import only_process

        assert self.xpnet("train", "--steps", 20).returncode == 0
        (folder,) = Path("runs").iterdir()
        holding = only_process(folder)  # kept: its end frees the folder, not its disposal
        with holding:
            found = self.xpnet("train", "--resume", folder)
        assert found.stderr == f"xpnet: error: another process trains in {folder}\n"
        assert self.xpnet("train", "--resume", folder).returncode == 0  # of a run that is complete

    def test_a_damaged_checkpoint_is_one_line(self):
        assert self.xpnet("train", "--steps", 20, "--checkpoint-steps", 5).returncode == 0
        (folder,) = Path("runs").iterdir()
        (folder / "checkpoint.safetensors").write_bytes(b"no")
        found = self.xpnet("train", "--resume", folder)
        assert found.returncode == 1
        assert "checkpoint.safetensors is not a whole checkpoint" in found.stderr
        assert found.stderr.count("\n") == 1

    @pytest.mark.slow
    def test_killed_runs_go_on(self):
        """The script kills more of them: python scripts/kill_and_resume.py --kills 200."""
        script = Path(__file__).parent.parent / "scripts" / "kill_and_resume.py"
        command = [sys.executable, str(script), "--kills", "4", "--without", "deep-convnet", "numba", "sgd"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("the parameters are those of an uninterrupted run") == 2
        settings = json.dumps(done.stdout)
        assert "adam shuffled" in settings
