"""Names of parameters, and assignment to a layer's attributes."""

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.layers import (
    Affine,
    BatchNormalization,
    Embedding,
    Flatten,
    Layer,
)
from xpnet.nets import Sequential, TwoLayerNet
from xpnet.optimizers import SGD


class TestNames:
    """Parameters are numbered by layer."""

    def layers(self):
        ones = np.ones(4, "float32")
        embedding = Embedding(np.arange(12, dtype="float32").reshape(3, 4))
        return [embedding, Flatten(), Affine.from_sizes(8, 4, rng=0), BatchNormalization(ones, 0 * ones),
                Affine.from_sizes(4, 2, rng=1)]  # fmt: skip

    def test_a_layers_number_is_one_more_than_the_highest_among_its_attributes(self):
        net = Sequential(self.layers(), input_shape=(2,))
        assert list(net.params) == ["W1", "W2", "b2", "gamma1", "beta1", "W3", "b3"]

    def test_files_of_before_load(self, tmp_path):
        net, other = (Sequential(self.layers(), input_shape=(2,)) for _ in range(2))
        net.params.flat[...] += 1.0
        net.save_params(tmp_path / "now.npz")
        with np.load(tmp_path / "now.npz") as now:
            former = {{"b2": "b1", "b3": "b2"}.get(name, name): now[name] for name in now.files}
        np.savez(tmp_path / "former.npz", **former)
        other.load_params(tmp_path / "former.npz")
        for name, values in net.params.items():
            np.testing.assert_array_equal(other.params[name], values)


class TestAssignment:
    """A layer's parameter is the network's: assigning to it writes there."""

    @pytest.mark.parametrize("backend", ["numpy", "numba"])
    def test_a_weight_that_is_assigned_is_trained(self, rng, backend):
        pytest.importorskip(backend, reason=f"{backend} is not installed")
        x, t = rng.random((200, 6), dtype="float32"), rng.integers(0, 2, 200)
        nets = [TwoLayerNet(6, 16, 2, "he", seed=0) for _ in range(2)]
        W, indices = rng.standard_normal((6, 16)).astype("float32"), rng.integers(0, 200, (30, 50))
        nets[0].params["W1"] = W
        nets[1].layers["Affine1"].W = W
        assert np.array_equal(nets[1].params["W1"], W)
        for net in nets:
            net.compile(SGD(0.5), 50, backend).run(x, t, indices)
        np.testing.assert_array_equal(nets[0].params.flat, nets[1].params.flat)
        assert nets[1].layers["Affine1"].W is nets[1].params["W1"]
        assert not np.array_equal(nets[1].params["W1"], W)

    def test_it_is_converted_and_moved(self, device):
        net = TwoLayerNet(6, 5, 3, device=device, seed=0)
        net.layers["Affine2"].b = np.array([1, 2, 3])
        assert (net.params["b2"].dtype, asnumpy(net.params["b2"]).tolist()) == ("float32", [1, 2, 3])
        net.layers["Affine2"].b += device.asarray([1.0, 1.0, 1.0], "float32")
        assert asnumpy(net.params["b2"]).tolist() == [2, 3, 4]

    def test_another_shape_is_refused(self, device):
        net = TwoLayerNet(6, 5, 3, device=device, seed=0)
        with pytest.raises(
            ValueError, match=r"Affine1.W has shape \(6, 5\), cannot be set to an array of shape \(5, 6\)"
        ):
            net.layers["Affine1"].W = np.zeros((5, 6))

    def test_a_layer_that_works_alone_keeps_the_very_array(self, rng):
        layer, W = Affine.from_sizes(6, 5, rng=0), rng.random((6, 5))
        layer.W = W
        assert layer.W is W


@pytest.mark.parametrize("value", [None, [1.0, 2.0]])
def test_a_declared_parameter_that_is_no_array_is_named(value):
    class Forgetful(Layer):
        parameter_names = ("scale",)

        def __init__(self):
            if value is not None:
                self.scale = value

    with pytest.raises(TypeError, match="Forgetful declares the parameter 'scale', which must be an array"):
        Sequential([Forgetful()])
