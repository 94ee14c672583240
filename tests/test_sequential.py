"""Sequential: rows of layers, with checked shapes."""

import numpy as np
import pytest
from test_nets import deep

from xpnet.gradient import gradient_check
from xpnet.layers import Affine, MulLayer, Relu, SoftmaxWithLoss
from xpnet.nets import Sequential, TwoLayerNet


class TestMlp:
    @pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "silu", "gelu"])
    def test_is_right_with_every_activation(self, device, rng, activation):
        net = Sequential.mlp([4, 6, 5, 3], activation, device=device, dtype="float64", seed=0)
        assert [p.shape for p in net.params.values()] == [(4, 6), (6,), (6, 5), (5,), (5, 3), (3,)]
        t = device.asarray(rng.integers(0, 3, 4))
        assert gradient_check(net, device.asarray(rng.standard_normal((4, 4))), t).ok

    def test_its_weights_suit_its_activation(self):
        for activation, expected in [("relu", np.sqrt(2 / 400)), ("tanh", np.sqrt(1 / 400))]:
            assert Sequential.mlp([400, 300, 2], activation).params["W1"].std() == pytest.approx(expected, rel=0.02)
        assert Sequential.mlp([400, 300, 2], std=0.5).params["W1"].std() == pytest.approx(0.5, rel=0.02)

    def test_two_layers_are_the_two_layer_net(self):
        ours, its = Sequential.mlp([4, 3, 2], std="he", seed=5), TwoLayerNet(4, 3, 2, "he", seed=5)
        np.testing.assert_array_equal(ours.params.flat, its.params.flat)

    @pytest.mark.parametrize("sizes", [[], [3], [3, 0], [3, 2.5, 1]])
    def test_sizes_that_make_no_network_are_refused(self, sizes):
        with pytest.raises(ValueError, match=r"sizes must be (two or more positive|a tuple of) integers"):
            Sequential.mlp(sizes)


class TestSequential:
    def test_refuses_what_is_no_stack_of_layers(self):
        with pytest.raises(ValueError, match="needs at least one layer"):
            Sequential([])
        with pytest.raises(TypeError, match=r"layer 'int1' must be an xpnet.layers.Layer, got int"):
            Sequential([3])
        with pytest.raises(TypeError, match=r"loss must be an xpnet.layers.Loss, got Relu"):
            Sequential([Relu()], Relu())

    def test_refuses_layers_that_do_not_fit_and_leaves_them_free(self):
        layers = [Affine.from_sizes(4, 5), Relu(), Affine.from_sizes(6, 2)]
        with pytest.raises(
            ValueError, match=r"Relu1 does not fit Affine2: Affine expected x of shape \(N, 6\).*\(N, 5\)"
        ):
            Sequential(layers)
        Sequential(layers[:2])

    def test_refuses_a_layer_that_has_a_place_already(self):
        relu = Relu()
        with pytest.raises(ValueError, match="layer 'Relu2' belongs to a network already"):
            Sequential([relu, relu])
        Sequential([relu])
        with pytest.raises(ValueError, match="'Relu1' belongs to a network already"):
            Sequential([relu])

    def test_refuses_parameters_of_different_dtypes_unless_told_which(self):
        def layers():
            return [Affine.from_sizes(2, 2, dtype="float32"), Affine.from_sizes(2, 2, dtype="float64")]

        with pytest.raises(ValueError, match=r"different dtypes \(W1 float32.*W2 float64.*\); pass dtype="):
            Sequential(layers())
        assert Sequential(layers(), dtype="float64").dtype == "float64"

    def test_names_the_layer_in_errors(self):
        net = deep(5)
        with pytest.raises(ValueError, match=r"Affine1 expected x of shape \(N, 6\)"):
            net.predict(np.zeros((2, 7)))

    def test_summary_lists_layers_shapes_and_parameters(self):
        text = TwoLayerNet(784, 50, 10).summary()
        assert [line.split() for line in text.splitlines() if not line.startswith("-")] == [
            ["layer", "output", "shape", "parameters"],
            ["Affine1", "(N,", "50)", "39,250"],
            ["Relu1", "(N,", "50)", "0"],
            ["Affine2", "(N,", "10)", "510"],
            ["total", "39,760"],
        ]
        net = Sequential([Relu()])
        assert "?" in net.summary()
        assert "(N, 3, 4)" in net.summary((3, 4))

    @pytest.mark.parametrize("layer", [MulLayer(), SoftmaxWithLoss()])
    def test_refuses_layers_of_two_inputs(self, layer):
        with pytest.raises(ValueError, match=r"1 takes 2 inputs; a layer of a Sequential gets one"):
            Sequential([layer])


def test_a_row_takes_names_and_the_shape_of_a_sample():
    net = Sequential({"encode": Affine.from_sizes(4, 3), "act": Relu()}, input_shape=(4,))
    assert list(net.layers) == ["encode", "act"]
    assert "encode  (N, 3)" in net.summary()
    with pytest.raises(ValueError, match=r"the input does not fit encode: .* expected x of shape \(N, 4\)"):
        Sequential({"encode": Affine.from_sizes(4, 3)}, input_shape=(5,))
