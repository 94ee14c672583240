"""CUDA kernels compiled for the host by g++, and the products of cublasLt by NumPy, for the fake in CuPy's place."""

import ctypes
import functools
import pathlib
import shutil
import subprocess
import tempfile
import threading

import numpy as np

COMPILER = shutil.which("g++")

CTYPES = {
    np.bool_: ctypes.c_bool,
    np.float64: ctypes.c_double,
    np.int64: ctypes.c_longlong,
}


class HostKernel:
    """A kernel, called as CuPy's are; arguments are NumPy's arrays and scalars.

    By default one thread does it all, which gives the same numbers (`kernels.cu`) but for the order of a sum.
    """

    def __init__(self, library, name):
        self.library, self.function = library, getattr(library, name)

    def __call__(self, grid, block, args, real_threads=False):
        arguments = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else CTYPES[type(a)](a) for a in args]
        if not real_threads:
            grid, block = (1,), (1,)
        self.library.launch(*grid, *block)
        if block == (1,):
            for index in range(grid[0]):
                self._run(index, 0, arguments)
            return
        for index in range(grid[0]):
            threads = [threading.Thread(target=self._run, args=(index, i, arguments)) for i in range(block[0])]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _run(self, block, thread, arguments):
        self.library.place(block, thread)
        self.function(*arguments)


@functools.cache
def compile_for_host(code, options):
    """Return the library of a CUDA source."""
    header = pathlib.Path(__file__).with_name("host_cuda.h")
    defines = [option for option in options if option.startswith("-D")]
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-w", "-x", "c++", "-include", header]
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder, "kernels.so")
        subprocess.run([COMPILER, *flags, *defines, "-", "-o", library], input=code.encode(), check=True)
        return ctypes.CDLL(str(library))


def product(dtype, count, a, b, out, epilogue):
    """Return what cublasLt would compute for operands as it sees them: a function of three addresses, or of four.

    All by what the operands say of the memory: columns of so many numbers, so far apart.
    """

    def matrices(operand, address):
        item = np.dtype(dtype).itemsize
        numbers = (operand.columns - 1) * operand.stride + operand.rows + (count - 1) * operand.batch
        memory = np.frombuffer((ctypes.c_char * (numbers * item)).from_address(address), dtype)
        steps = (operand.batch * item, item, operand.stride * item)
        found = np.lib.stride_tricks.as_strided(memory, (count, operand.rows, operand.columns), steps)
        return found.swapaxes(1, 2) if operand.transposed else found

    def multiply(at_a, at_b, at_out, at_vector=None):
        assert not out.transposed
        for operand in (a, b, out):
            assert operand.stride >= operand.rows
        left, result = matrices(b, at_b), matrices(out, at_out)
        result[...] = left @ matrices(a, at_a)
        if epilogue == "bias":
            result += vector(at_vector)[:, None]
        elif epilogue == "sums":
            vector(at_vector)[...] = left[0].sum(axis=1)

    def vector(address):
        size = out.rows * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype)

    def written(at_out, at_vector=None):
        return [matrices(out, at_out), *([vector(at_vector)] if epilogue == "sums" else [])]

    multiply.written = written
    return multiply
