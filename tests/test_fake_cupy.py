"""The fake must be as strict as CuPy, and have nothing that CuPy has not."""

import inspect
import operator

import fake_cupy
import fake_stream
import numpy as np
import pytest


@pytest.fixture
def real_cupy():
    return pytest.importorskip("cupy", reason="CuPy is not installed (it needs no GPU for this test)")


def test_fake_has_no_function_and_no_argument_that_cupy_lacks(real_cupy):
    for name, stub in fake_cupy.SIGNATURES.items():
        real = inspect.signature(operator.attrgetter(name)(real_cupy)).parameters
        ours = inspect.signature(stub).parameters
        assert set(ours) <= set(real), name
        assert [p for p in ours if p in real] == [p for p in real if p in ours], name
    for name in [*fake_cupy.UFUNCS, "where", "array", "asarray", "asnumpy"]:
        assert callable(getattr(real_cupy, name)), name
    for name in ("astype", "reshape", "copy", "ravel", "transpose", "sum", "max", "min", "any", "all", "get", "device"):
        assert hasattr(real_cupy.ndarray, name), name


def test_cupy_arrays_are_recognised_by_their_type(real_cupy):
    from xpnet.device import _kind_of_type

    assert _kind_of_type(real_cupy.ndarray) == "cuda"


def test_fake_refuses_implicit_conversion_and_host_arrays(cupy):
    x = cupy.asarray(np.ones(3))
    for mix in (
        lambda: np.asarray(x),
        lambda: np.exp(x),
        lambda: x + np.ones(3),
        lambda: np.ones(3) * x,
        lambda: cupy.maximum(x, np.ones(3)),
        lambda: x.__setitem__(0, np.ones(())),
    ):
        with pytest.raises(TypeError):
            mix()


def test_fake_counts_what_stalls_a_gpu(cupy):
    x = cupy.asarray(np.arange(4.0))
    fake_cupy.counts.reset()
    total = cupy.sum(x * 2.0)
    assert total.shape == ()
    assert fake_cupy.counts == fake_stream.Counts(transfers=0, synchronizations=0)
    assert float(total) == 12.0
    x[x > 1]
    assert fake_cupy.counts.synchronizations == 2
    assert fake_cupy.counts.transfers == 1


def test_fake_indexing_with_integers_gives_views(cupy):
    x = cupy.zeros((2, 2))
    element = x[0, 1]
    x[0, 1] = 5.0
    assert float(element) == 5.0


def test_fake_arrays_are_used_on_their_own_device_only(cupy):
    with cupy.cuda.Device(1):
        x = cupy.zeros(3)
    with pytest.raises(ValueError, match="device 1"):
        x + 1
