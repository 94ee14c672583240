import pickle
import re
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import xpnet
from xpnet import Device, DeviceError, asnumpy, get_array_module, get_device


def test_devices_are_values():
    assert Device("cpu") == Device("cpu")
    assert len({Device("cpu"), Device("cpu"), Device(Device("cpu"))}) == 1
    assert str(Device("cpu")) == "cpu"
    assert pickle.loads(pickle.dumps(Device("cpu"))) == Device("cpu")
    with pytest.raises(AttributeError, match="cannot be changed"):
        Device("cpu").name = "cuda"


def test_cuda_is_the_first_cuda_device(cupy):
    assert Device("cuda") == Device("cuda:0") != Device("cpu")
    assert Device("cuda").name == "cuda:0"
    assert Device("cuda").xp is cupy


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:²", "CPU", "", None, 3])
def test_unknown_device_names_are_refused(name):
    with pytest.raises(ValueError, match=r"device must be 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        Device(name)


def test_auto_takes_the_gpu_where_there_is_one_and_says_so(cupy):
    device = Device("auto")
    assert device.name == "cuda:0"
    assert re.fullmatch(r"auto: \d+ CUDA devices? found", device.note)
    assert Device("cuda").note == ""


def test_auto_takes_the_cpu_where_there_is_no_gpu_and_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    device = Device("auto")
    assert device.name == "cpu"
    assert device.note.startswith("auto: CuPy is not installed")


def test_cuda_without_cupy_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # makes `import cupy` fail as if it were not there
    with pytest.raises(DeviceError, match=r"CuPy is not installed; .*pip install 'cupy-cuda13x\[ctk\]>=14,<15'"):
        Device("cuda")


@pytest.fixture
def broken(monkeypatch):
    """A function that puts in CuPy's place what answers as one does whose driver or devices are missing."""

    class CUDARuntimeError(RuntimeError):
        pass

    def put(driver, devices):
        def count():
            if isinstance(devices, str):
                raise CUDARuntimeError(devices)
            return devices

        runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError, driverGetVersion=lambda: driver, getDeviceCount=count
        )
        module = ModuleType("cupy")
        module.__version__, module.cuda = "14.2.0", SimpleNamespace(runtime=runtime)
        monkeypatch.setitem(sys.modules, "cupy", module)

    return put


OLD = "cudaErrorInsufficientDriver: CUDA driver version is insufficient"


def test_cuda_without_a_driver_asks_for_the_driver(broken):
    broken(0, OLD)
    with pytest.raises(DeviceError, match=r"there is no NVIDIA driver; install the driver"):
        Device("cuda")
    assert Device("auto").name == "cpu"


@pytest.mark.driverless
def test_real_cupy_without_a_driver_asks_for_the_driver():
    real = pytest.importorskip("cupy", reason="CuPy is not installed (it needs no GPU for this test)")
    if real.cuda.runtime.driverGetVersion() != 0:
        pytest.skip("there is an NVIDIA driver here")
    with pytest.raises(DeviceError, match=r"CuPy 1\d\.\S+ is installed but there is no NVIDIA driver"):
        Device("cuda")
    assert Device("auto").name == "cpu"


def test_cuda_with_an_old_driver_says_which_versions_do_not_fit(broken):
    broken(12020, OLD)
    with pytest.raises(DeviceError, match=r"driver \(CUDA 12\.2\) does not work with CuPy 14.*update the driver, or"):
        Device("cuda")


@pytest.mark.parametrize(
    ("devices", "there"),
    [
        ("cudaErrorNoDevice: no CUDA-capable device is detected", "no CUDA device"),
        (1, "only cuda:0"),
        (2, "cuda:0 to cuda:1"),
    ],
)
def test_a_cuda_device_that_does_not_exist_is_refused_by_number(broken, devices, there):
    broken(13000, devices)
    with pytest.raises(DeviceError, match=f"cuda:2 does not exist: there is {there} on this machine"):
        Device("cuda:2")


def test_broken_cupy_is_told_from_missing_cupy(tmp_path, monkeypatch):
    (tmp_path / "cupy.py").write_text("import not_there_either")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(DeviceError, match="cannot be imported: No module named 'not_there_either'"):
        Device("cuda")


def test_asarray_and_asnumpy_go_there_and_back(device):
    host = np.arange(6.0).reshape(2, 3)
    there = device.asarray(host)
    assert get_array_module(there) is device.xp
    assert get_device(there) == device
    assert device.holds(there)
    np.testing.assert_array_equal(device.asnumpy(there), host)
    np.testing.assert_array_equal(asnumpy(there), host)
    assert device.asarray(there) is there
    assert device.asarray(there, "float32").dtype == "float32"
    assert device.asarray([1, 2]).dtype == "int64"
    assert Device("cpu").asarray(there).__class__ is np.ndarray
    device.synchronize()


def test_mixed_devices_are_refused_by_name(cupy):
    there, here = cupy.zeros(2), np.zeros(2)
    message = r"x is on cuda:0 \(cupy.ndarray\), W is on the host \(numpy.ndarray\); move them to one device"
    with pytest.raises(DeviceError, match=message):
        get_array_module(x=there, W=here)
    with pytest.raises(DeviceError, match=r"argument 0 is on the host \(builtins.list\), argument 1 is on cuda:0"):
        get_array_module([1.0], there)


def test_scalars_go_with_either_module(device):
    there = device.asarray([1.0])
    assert get_array_module(there, 2.0, np.float64(1.0), True) is device.xp
    assert get_array_module(2.0) is np
    assert get_array_module() is np


def test_work_on_a_second_device_stays_there(second):
    from xpnet.nets import TwoLayerNet

    device = second
    net = TwoLayerNet(4, 3, 2, device=device, seed=0)
    x, t = device.asarray(np.ones((2, 4), "float32")), device.asarray(np.array([0, 1]))
    grads = net.gradient(x, t)
    assert get_device(grads["W1"]) == device
    assert 0.0 <= net.accuracy(x, t) <= 1.0


def test_zeros_start_on_a_256_byte_boundary():
    for dtype in ("float16", "float32", "float64"):
        for size in (0, 1, 100, 5000):
            block = Device("cpu").zeros(size, dtype)
            assert block.ctypes.data % 256 == 0 or size == 0
            assert block.shape == (size,)
            assert not block.any()


def test_the_same_seed_gives_the_same_numbers_on_every_device(device):
    expected = np.random.default_rng(7).integers(0, 1000, 10)
    np.testing.assert_array_equal(device.rng(7).integers(0, 1000, 10), expected)
    generator = np.random.default_rng(1)
    assert device.rng(generator) is generator


@pytest.mark.parametrize(("names", "packages"), [("__version__", ["xpnet"]), ("Device, layers", ["numpy", "xpnet"])])
def test_importing_xpnet_loads_numpy_at_first_use_and_nothing_else_from_outside(names, packages):
    program = (
        f"import sys, site; before = set(sys.modules); from xpnet import {names}; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(n for n in new if n not in sys.stdlib_module_names and not n.startswith('_')))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == str(packages)


def test_importing_xpnet_loads_few_modules_beyond_those_of_numpy():
    program = "import sys, numpy; old = set(sys.modules); from xpnet import Device; print(*{*sys.modules} - old)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert len(loaded) <= 10, loaded  # 7 with Python 3.11 and NumPy 2.4


def test_submodules_are_attributes_of_the_package():
    assert xpnet.layers.Relu.__name__ == "Relu"
    assert "training" in dir(xpnet)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        xpnet.nothing  # noqa: B018
