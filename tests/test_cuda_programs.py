"""The stand-in runs CuPy programs that have nothing to do with xpnet, as any project's CI would."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

PROGRAMS = Path(__file__).parent / "cupy_programs"


@pytest.fixture
def program(cuda):
    """Import a program by name."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"cupy_programs_{name}", PROGRAMS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_stencil_diffuses_heat(program, cuda, dtype, rng):
    plate = rng.random((12, 12)).astype(dtype)
    expected = plate.copy()
    for _ in range(5):
        u = expected.copy()
        expected[1:-1, 1:-1] += 0.2 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:] - 4 * u[1:-1, 1:-1])
    found = program("heat").diffuse(cuda.asarray(plate), 5)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.get(), expected, rtol=1e-5 if dtype == "float32" else 1e-13)


def test_reductions_describe_a_table(program, cuda, rng):
    table = rng.random((7, 50))
    norms, means, deviations, counts = program("statistics").describe(cuda.asarray(table))
    np.testing.assert_allclose(norms.get(), np.linalg.norm(table, axis=1), rtol=1e-13)
    np.testing.assert_allclose(means.get(), table.mean(axis=1), rtol=1e-13)
    np.testing.assert_allclose(deviations.get(), table.std(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(counts.get(), np.histogram(table, 10, (0, 1))[0])


def test_filters_find_the_edges_of_an_image(program, cuda, rng):
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")
    image = rng.random((16, 20))
    smooth = ndimage.gaussian_filter(ndimage.median_filter(image, 3), 1.0)
    expected = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
    np.testing.assert_allclose(program("edges").edges(cuda.asarray(image)).get(), expected, rtol=1e-10, atol=1e-12)
