"""The stand-in for the CUDA runtime: what it computes, what it refuses, what it counts (only on CuPy built for it)."""

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from xpnet.testing.cuda_stand_in import counts

try:
    counts()
except RuntimeError:
    pytest.skip("CuPy is not on the CUDA stand-in (make test-cuda)", allow_module_level=True)

import cupy
from cupy.cuda import runtime

ADD_ROWS = cupy.RawKernel(
    r"""
extern "C" __global__ void add_rows(const float* x, float* out) {
    extern __shared__ float row[];
    row[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    float sum = row[blockDim.x - 1 - threadIdx.x];
    for (int half = 16; half > 0; half /= 2) sum += __shfl_xor_sync(~0u, sum, half);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}""",
    "add_rows",
)


def difference(before):
    return {name: count - before[name] for name, count in counts().items() if count != before[name]}


def test_threads_meet_at_barriers_and_pass_numbers(rng):
    x = rng.standard_normal((3, 32)).astype("float32")
    out = cupy.empty(3, "float32")
    ADD_ROWS((3,), (32,), (cupy.asarray(x), out), shared_mem=128)
    np.testing.assert_allclose(out.get(), x.sum(axis=1), rtol=1e-5, atol=1e-6)


def test_host_threads_may_launch_at_once(rng):
    x = rng.standard_normal((4, 64, 32)).astype("float32")
    wrong = []

    def work(mine):
        with cupy.cuda.Stream(non_blocking=True):
            for _ in range(20):
                out = cupy.empty(64, "float32")
                ADD_ROWS((64,), (32,), (cupy.asarray(mine), out), shared_mem=128)
                if not np.allclose(out.get(), mine.sum(axis=1), rtol=1e-4, atol=1e-5):
                    wrong.append(out)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in x]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_fresh_memory_is_full_of_nan():
    assert cupy.isnan(cupy.ndarray(8, memptr=fresh(64))).all()


def fresh(size):
    return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)


def test_memory_ends(monkeypatch):
    monkeypatch.setenv("CUDA_STAND_IN_MEMORY", "100000")
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
        cupy.cuda.MemoryPool().malloc(200_000)


def test_a_copy_past_the_end_of_its_memory_is_refused():
    memory = fresh(512)
    with pytest.raises(runtime.CUDARuntimeError, match="invalid argument"):
        runtime.memset(memory.ptr + 256, 0, 512)


def test_there_are_as_many_devices_as_were_asked_for():
    with pytest.raises(runtime.CUDARuntimeError, match="invalid device ordinal"):
        cupy.cuda.Device(runtime.getDeviceCount()).use()


TWO_DEVICES = """
import cupy
from cupy.cuda import runtime

scale = cupy.RawKernel('extern "C" __global__ void scale(float* x) { x[threadIdx.x] *= 2; }', "scale")
with cupy.cuda.Device(1):
    there = cupy.ones(3, "float32")
try:
    scale((1,), (3,), (there,))
except cupy.cuda.driver.CUDADriverError as error:
    print(error)
runtime.deviceEnablePeerAccess(1)
scale((1,), (3,), (there,))
print(there.device.id, there.get(), cupy.asarray(there).device.id)
"""


def test_memory_of_another_device_needs_peer_access():
    environment = {**os.environ, "CUDA_STAND_IN_DEVICES": "2"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], env=environment, capture_output=True, text=True, check=True
    )
    refused, shown = done.stdout.splitlines()
    assert "memory of another device, without peer access" in refused
    assert shown == "1 [2. 2. 2.] 0"  # copied to the current device


def test_a_graph_of_two_streams_runs_when_it_is_launched():
    main, side = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    x, y = cupy.zeros(4), cupy.zeros(4)
    x + 1  # compile first
    with main:
        main.begin_capture()
        cupy.add(x, 1.0, out=x)
        side.wait_event(main.record())
        with side:
            cupy.add(y, x, out=y)
        main.wait_event(side.record())
        graph = main.end_capture()
    assert not x.get().any()
    before = counts()
    graph.launch(main)
    graph.launch(main)
    assert difference(before) == {"graph_launches": 2}
    assert (x.get() == 2).all()
    assert (y.get() == 3).all()


def test_a_forked_stream_has_to_come_back():
    main, side = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    main.begin_capture()
    side.wait_event(main.record())
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureUnjoined"):
        main.end_capture()


def test_a_capture_does_not_survive_a_wait():
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
        runtime.streamSynchronize(stream.ptr)
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()


def test_events_measure_and_have_to_be_recorded():
    start, end, never = (cupy.cuda.Event() for _ in range(3))
    start.record()
    end.record()
    assert cupy.cuda.get_elapsed_time(start, end) >= 0
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorInvalidResourceHandle"):
        cupy.cuda.get_elapsed_time(start, never)


def test_work_is_counted():
    x = cupy.ones((4, 4))
    x + x, x @ x, x.copy()  # compile, and fill the pool
    before = counts()
    x + x
    assert difference(before) == {"kernels": 1}
    before = counts()
    x @ x
    assert difference(before) == {"products": 1}
    before = counts()
    x.get()
    assert difference(before) == {"copies_to_host": 1, "synchronizations": 1}
    before = counts()
    cupy.asarray(np.ones(3))
    assert difference(before)["copies_to_device"] == 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_products(dtype, rng):
    a, b = rng.standard_normal((2, 5, 7)), rng.standard_normal((2, 7, 6))
    a, b = a.astype(dtype), b.astype(dtype)
    tolerance = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-13}[dtype]
    for left, right in ((a, b), (a[0], b[0]), (a[0], b[0, :, 0]), (a, b[0])):
        found = cupy.matmul(cupy.asarray(left), cupy.asarray(right)).get()
        np.testing.assert_allclose(found, left.astype("d") @ right.astype("d"), rtol=tolerance, atol=tolerance)
    found = cupy.matmul(cupy.asarray(b[0]).T, cupy.asarray(a[0]).T).get()
    np.testing.assert_allclose(found, b[0].T.astype("d") @ a[0].T.astype("d"), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: cupy.random.default_rng(0).random(3),
        lambda: cupy.random.rand(3),
        lambda: cupy.sort(cupy.arange(3.0)),
        lambda: cupy.linalg.svd(cupy.eye(3)),
        lambda: cupy.fft.fft(cupy.arange(3.0)),
        lambda: cupy.ones((2, 2), "complex64") @ cupy.ones((2, 2), "complex64"),
        lambda: cupy._core.set_routine_accelerators(["cub"]),
        lambda: runtime.mallocManaged(8),
        lambda: cupy.RawKernel('extern "C" __global__ void f() { asm("bar.sync 0;"); }', "f")((1,), (1,), ()),
        lambda: ADD_ROWS((1,), (2048,), (cupy.ones(2048), cupy.ones(1))),
    ],
)
def test_what_is_missing_is_an_error(refused):
    with pytest.raises(Exception, match=r"stand-in|Thrust|lib|NOT_SUPPORTED|invalid argument"):
        refused()


class TestCublasLt:
    @pytest.fixture
    def lt(self):
        from xpnet.kernels import cublaslt

        return cublaslt

    def test_an_epilogue_is_applied_and_captured(self, lt, rng):
        a, b, bias = (cupy.asarray(rng.standard_normal(n).astype("f")) for n in ((5, 7), (7, 6), (6,)))
        out, sums, row_sums = cupy.empty((5, 6), "f"), cupy.empty(6, "f"), cupy.empty(5, "f")
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            lt.multiply(a, b, out, bias=bias)
            lt.multiply(a, b, cupy.empty_like(out), sums=sums)
            lt.multiply(a, b, cupy.empty_like(out), row_sums=row_sums)
            graph = stream.end_capture()
        graph.launch(stream)
        np.testing.assert_allclose(out.get(), a.get() @ b.get() + bias.get(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(sums.get(), b.get().sum(axis=0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(row_sums.get(), a.get().sum(axis=1), rtol=1e-5, atol=1e-5)

    def test_no_epilogue_in_float64(self, lt):
        a, out, bias = cupy.ones((4, 4)), cupy.empty((4, 4)), cupy.ones(4)
        assert not lt.multiply(a, a, out, bias=bias)
        assert (out.get() == 4).all()

    def test_tf32_rounds_its_inputs(self, lt):
        a, out = cupy.full((1, 1), 1 + 2**-13, "f"), cupy.empty((1, 1), "f")
        lt.multiply(a, a, out, "tf32")
        assert out.get() == 1
        lt.multiply(a, a, out, "float32")
        assert out.get() > 1

    def test_layouts_that_do_not_fit_are_invalid(self, lt):
        description = lt._create("MatmulDesc", ctypes.c_int(68), ctypes.c_int(0))
        layouts = [lt._layout(0, lt.Operand(*sizes, False, 0), 1) for sizes in ((4, 4, 3), (4, 4, 4), (4, 4, 4))]
        found, best = ctypes.c_int(), lt._HeuristicResult()
        with pytest.raises(RuntimeError, match="status 7"):
            lt._call(
                *("cublasLtMatmulAlgoGetHeuristic", lt._handle(0), description, *layouts, layouts[2]),
                *(lt._create("MatmulPreference"), ctypes.c_int(1), ctypes.byref(best), ctypes.byref(found)),
            )

    def test_memory_of_the_host_is_refused(self, lt):
        a, out = cupy.ones((4, 4), "f"), np.empty((4, 4), "f")
        operand = lt.Operand.of(a)
        product = lt._product(0, "float32", "float32", 1, (operand,) * 3, (16,) * 3, "none")
        with pytest.raises(RuntimeError, match="status 13"):
            product(0, a.data.ptr, a.data.ptr, out.ctypes.data // 16 * 16)
