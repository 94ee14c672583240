"""A strict stand-in for CuPy, for machines without a GPU.

It wraps NumPy and behaves as CuPy 14 does at its edges: no implicit conversion to or from host arrays, results of
reductions and integer indices are 0-d arrays on the device (the latter views), arrays belong to a device and are used
on that one only, and only the names and arguments that CuPy has exist. It counts what stalls a GPU: transfers, and
synchronising calls (`float`, `bool`, `item`, a boolean-mask read ...).

A stream captures what is done on it, as CuPy's does, and a graph's launch does it again, in the same memory: see
`fake_stream.Capture`.

`create()` returns a module to be put in the place of `cupy` in `sys.modules`, so that the package under test takes
the very paths that it takes with the real one. `test_fake_cupy.py` compares names and signatures with the real CuPy
where that is installed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import cuda_on_host
import numpy as np
from fake_stream import CUDARuntimeError, Stream, capturing, counts, get_current_stream, wait_for_host

SIGNATURES = {
    "all": lambda a, axis=None, out=None, keepdims=False: None,
    "any": lambda a, axis=None, out=None, keepdims=False: None,
    "arange": lambda start, stop=None, step=1, dtype=None: None,
    "argmax": lambda a, axis=None, dtype=None, out=None, keepdims=False: None,
    "ascontiguousarray": lambda a, dtype=None: None,
    "broadcast_to": lambda array, shape: None,
    "clip": lambda a, a_min, a_max, out=None: None,
    "concatenate": lambda tup, axis=0, out=None: None,
    "empty": lambda shape, dtype=float, order="C": None,
    "empty_like": lambda prototype, dtype=None: None,
    "lib.stride_tricks.as_strided": lambda x, shape=None, strides=None: None,
    "max": lambda a, axis=None, out=None, keepdims=False: None,
    "mean": lambda a, axis=None, dtype=None, out=None, keepdims=False: None,
    "moveaxis": lambda a, source, destination: None,
    "min": lambda a, axis=None, out=None, keepdims=False: None,
    "ones": lambda shape, dtype=float, order="C": None,
    "stack": lambda tup, axis=0, out=None, dtype=None, casting="same_kind": None,
    "sum": lambda a, axis=None, dtype=None, out=None, keepdims=False: None,
    "take": lambda a, indices, axis=None, out=None: None,
    "take_along_axis": lambda a, indices, axis: None,
    "vdot": lambda a, b: None,
    "zeros": lambda shape, dtype=float, order="C": None,
    "zeros_like": lambda a, dtype=None: None,
}
UFUNCS = (
    *("abs", "add", "copysign", "divide", "equal", "exp", "expm1", "greater", "isfinite", "isnan", "less", "log"),
    *("log1p", "matmul", "maximum", "minimum", "multiply", "negative", "power", "sign", "sqrt", "square", "subtract"),
    "tanh",
)


current_device = [0]
DEVICE_COUNT = 2
FREE_MEMORY = [79 * 2**30]


class ndarray:  # noqa: N801
    """An array on a fake device."""

    __module__ = "cupy"  # what the package recognises CuPy's arrays by
    __array_ufunc__ = None  # NumPy's functions refuse it, and host arrays leave operators to it, which refuses them
    __hash__ = None

    def __init__(self, values: np.ndarray, device: int) -> None:
        self._values = values
        self._device = device

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    strides = property(lambda self: self._values.strides)
    data = property(lambda self: SimpleNamespace(ptr=self._values.ctypes.data))
    itemsize = property(lambda self: self._values.itemsize)
    nbytes = property(lambda self: self._values.nbytes)
    T = property(lambda self: _wrap(self._values.T, self._device))
    device = property(lambda self: SimpleNamespace(id=self._device))
    flags = property(lambda self: SimpleNamespace(c_contiguous=self._values.flags.c_contiguous))

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __array__(self, *_args, **_kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct one.")

    def __getitem__(self, index):
        index = _unwrap_index(index)
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(part, np.ndarray) and part.dtype == bool for part in parts):
            wait_for_host("the size of a boolean mask's result")
        if Ellipsis not in [part for part in parts if not isinstance(part, np.ndarray)]:
            parts = (*parts, Ellipsis)  # NumPy then returns a 0-d view, as CuPy does, in place of a scalar
        return _result(lambda: self._values[parts], self._values, device=self._device)

    def __setitem__(self, index, value):
        index, value = _unwrap_index(index), _unwrap(value)
        _do(lambda: self._values.__setitem__(index, value), self._values)

    def _scatter_add(self, indices, values):
        indices, values = _unwrap_index(indices), _unwrap(values)
        _do(lambda: np.add.at(self._values, indices, values), self._values)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        return _result(lambda: self._values.astype(dtype, copy=copy), self._values, device=self._device)

    def fill(self, value):
        _do(lambda: self._values.fill(value), self._values)

    def set(self, values, stream=None):
        counts.transfers += 1
        assert isinstance(values, np.ndarray)
        assert values.dtype == self.dtype
        self._values[...] = values

    def reshape(self, *shape, order="C"):
        return _result(lambda: self._values.reshape(*shape, order=order), self._values, device=self._device)

    def view(self, dtype=None):
        return _wrap(self._values.view(dtype), self._device)

    def take(self, indices, axis=None, out=None):
        return _call(np.take, self, indices, axis=axis, out=out)

    def copy(self, order="C"):
        return _result(lambda: self._values.copy(order), device=self._device)

    def ravel(self, order="C"):
        return _result(lambda: self._values.ravel(order), self._values, device=self._device)

    def transpose(self, *axes):
        return _wrap(self._values.transpose(*axes), self._device)

    def sum(self, axis=None, dtype=None, out=None, keepdims=False):
        return _call(np.sum, self, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def mean(self, axis=None, dtype=None, out=None, keepdims=False):
        return _call(np.mean, self, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def max(self, axis=None, out=None, keepdims=False):
        return _call(np.max, self, axis=axis, out=out, keepdims=keepdims)

    def min(self, axis=None, out=None, keepdims=False):
        return _call(np.min, self, axis=axis, out=out, keepdims=keepdims)

    def any(self, axis=None, out=None, keepdims=False):
        return _call(np.any, self, axis=axis, out=out, keepdims=keepdims)

    def all(self, axis=None, out=None, keepdims=False):
        return _call(np.all, self, axis=axis, out=out, keepdims=keepdims)

    def get(self):
        counts.transfers += 1
        wait_for_host("a copy to the host")
        return self._values.copy()

    def _value(self):
        counts.transfers += 1
        wait_for_host("a value on the host")
        return self._values.item()

    def item(self):
        return self._value()

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self._value())

    def __int__(self):
        return int(self._value())

    def __index__(self):
        return operator.index(self._value())

    def __bool__(self):
        return bool(self._value())

    def __deepcopy__(self, memo):
        return self.copy()

    def __repr__(self):
        return f"fake_{self._values!r}"


COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "rshift")
UNARY = ("neg", "abs", "invert", "pos")


def _add_operators() -> None:
    def in_place(function):
        def method(self, other):
            other = _unwrap(other)
            _do(lambda: function(self._values, other), self._values)
            return self

        return method

    for name in (*COMPARISONS, *BINARY):
        function, stem = getattr(operator, name), name.rstrip("_")
        setattr(ndarray, f"__{stem}__", lambda self, other, f=function: _call(f, self, other))
        if name in BINARY:
            setattr(ndarray, f"__r{stem}__", lambda self, other, f=function: _call(f, other, self))
            setattr(ndarray, f"__i{stem}__", in_place(getattr(operator, f"__i{stem}__")))
    for name in UNARY:
        function = getattr(operator, name)
        setattr(ndarray, f"__{name}__", lambda self, f=function: _call(f, self))


_add_operators()


def _wrap(values, device):
    return ndarray(np.asarray(values), device)


def _unwrap(x):
    """Return what NumPy shall compute with; refuse what CuPy refuses."""
    if isinstance(x, ndarray):
        if x._device != current_device[0]:
            raise ValueError(f"array on device {x._device} used while device {current_device[0]} is current")
        return x._values
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, (list, tuple)) and any(isinstance(item, ndarray) for item in x):
        return type(x)(_unwrap(item) for item in x)
    return x


def _unwrap_index(index):
    return tuple(_unwrap(part) for part in index) if isinstance(index, tuple) else _unwrap(index)


BLAS = {operator.matmul, np.matmul, np.vdot}


def _call(function, *args, **kwargs):
    if capturing and function in BLAS:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    out = kwargs.get("out")
    args, kwargs = [_unwrap(x) for x in args], {key: _unwrap(value) for key, value in kwargs.items()}
    if out is not None:
        _do(lambda: function(*args, **kwargs), out._values)
        return out
    inputs = [x for group in args for x in (group if isinstance(group, (list, tuple)) else [group])]
    return _result(lambda: function(*args, **kwargs), *inputs)


def _do(call, *writes):
    """Do something that writes into arrays of the device."""
    return capturing[0].do(call, writes) if capturing else call()


def _result(call, *inputs, device=None):
    """Return what a call gives: a view of one of its inputs, or an array of its own, filled again by each launch."""
    values = np.asarray(call())
    if capturing and not any(isinstance(x, np.ndarray) and np.may_share_memory(values, x) for x in inputs):
        capturing[0].make(values, call)
    return _wrap(values, current_device[0] if device is None else device)


def _function(name):
    signature = inspect.signature(SIGNATURES[name])

    def function(*args, **kwargs):
        signature.bind(*args, **kwargs)  # TypeError for an argument that CuPy does not have
        return _call(operator.attrgetter(name)(np), *args, **kwargs)

    return function


def _ufunc(name):
    def function(*args, out=None, dtype=None, casting="same_kind"):
        given = {"out": out, "dtype": dtype}
        return _call(getattr(np, name), *args, casting=casting, **{k: v for k, v in given.items() if v is not None})

    if name == "add":
        function.at = lambda a, indices, b=None: a._scatter_add(indices, b)
    return function


def _where(condition, x=None, y=None):
    if x is None or y is None:
        wait_for_host("one-argument where")
        raise TypeError("one-argument where synchronises; keep it out of the package")
    return _call(np.where, condition, x, y)


def _array(a, dtype=None, copy=True, order="K"):
    if isinstance(a, ndarray):
        values = a._values  # from any device: CuPy copies between them
        if a._device == current_device[0] and not copy and dtype in {None, a.dtype}:
            return a
        return _result(lambda: np.array(values, dtype=dtype, order=order))
    counts.transfers += 1
    if capturing:
        wait_for_host("a copy from the host")
    return _wrap(np.array(a, dtype=dtype, order=order), current_device[0])


def _asarray(a, dtype=None, order=None):
    return _array(a, dtype=None if dtype is None else np.dtype(dtype), copy=False, order=order or "K")


class _Device(contextlib.AbstractContextManager):
    """Makes its device the current one."""

    def __init__(self, index=None):
        self.id = current_device[0] if index is None else index

    def __enter__(self):
        current_device.insert(0, self.id)
        return self

    def __exit__(self, *_):
        current_device.pop(0)


class _RawModule:
    """CUDA's source, compiled for the host."""

    def __init__(self, code=None, options=()):
        self.library = cuda_on_host.compile_for_host(code, options)

    def get_function(self, name):
        kernel = cuda_on_host.HostKernel(self.library, name)

        def launch(grid, block, args):
            values = [_unwrap(argument) for argument in args]
            _do(lambda: kernel(grid, block, values), *[x for x in values if isinstance(x, np.ndarray)])

        return launch


def make_product(device, dtype, compute, count, operands, alignments, epilogue):
    """Return what takes the place of a product by cublasLt, of which it is given the operands' addresses.

    In float64 there is none with a bias or sums.
    """
    assert set(alignments) <= {2, 4, 8, 16}
    assert len(alignments) == (3 if epilogue == "none" else 4)
    if epilogue != "none" and dtype == "float64":
        return None
    multiply = cuda_on_host.product(dtype, count, *operands, epilogue)

    def launch(stream, a, b, out, *vector):
        _do(lambda: multiply(a, b, out, *vector), *multiply.written(out, *vector))

    return launch


def create() -> ModuleType:
    """Return a fake `cupy` module with two devices, its counts at zero."""
    counts.reset()
    current_device[:] = [0]
    capturing.clear()
    module = ModuleType("cupy")
    module.__spec__ = ModuleSpec("cupy", None)
    module.lib = SimpleNamespace(stride_tricks=SimpleNamespace())
    for name in SIGNATURES:
        *path, last = name.split(".")
        setattr(functools.reduce(getattr, path, module), last, _function(name))
    for name in UFUNCS:
        setattr(module, name, _ufunc(name))
    module.__version__ = "14.2.0 (fake)"
    module.ndarray = ndarray
    module.where = _where
    module.array = _array
    module.asarray = _asarray
    module.asnumpy = lambda a: a.get() if isinstance(a, ndarray) else np.asarray(a)
    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        getDeviceCount=lambda: DEVICE_COUNT,
        getDeviceProperties=lambda index: {
            "name": f"Fake GPU {index}".encode(),
            "totalGlobalMem": 80 * 2**30,
            "major": 9,
            "minor": 0,
        },
        getDevice=lambda: current_device[0],
        memGetInfo=lambda: (FREE_MEMORY[0], 80 * 2**30),
    )
    module.RawModule = _RawModule
    module.cuda = SimpleNamespace(
        Device=_Device,
        MemoryPool=lambda: SimpleNamespace(malloc=None, free_all_blocks=lambda: None),
        Stream=Stream,
        get_current_stream=get_current_stream,
        runtime=runtime,
        using_allocator=contextlib.nullcontext,
    )
    return module
