"""Build an environment in which real CuPy runs on the stand-in: a virtual environment, from packages alone."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

from xpnet.testing.cuda_stand_in.compiler import FLAGS

__all__ = ["build"]

HERE = pathlib.Path(__file__).parent
CUPY = "14.2.0"
HEADERS = ("nvidia-cuda-runtime>=13,<14", "nvidia-cuda-crt>=13,<14", "nvidia-cuda-cccl>=13,<14")
# The caller's NumPy: compiled packages of the caller's environment then work in this one too.
NUMPY = f"numpy=={importlib.metadata.version('numpy')}"
PACKAGES = (f"cupy-cuda13x=={CUPY}", NUMPY, "nvidia-cuda-nvrtc>=13,<14", *HEADERS)
TOOLS = ("cython>=3.2,<3.3", "setuptools", "nvidia-cuda-profiler-api>=13,<14")
TRIAL = "import cupy; print(int(cupy.arange(4).sum()), (cupy.ones((2, 3)) @ cupy.ones(3)).get())"

RUNTIME = ("counters.c", "devices.c", "memory.c", "streams.c", "cuda.c")
LIBRARIES = {
    "libcublasLt.so.13": ("product.c", "cublaslt.c"),
    "libcublas.so.13": ("product.c", "cublas.c"),
}
NOT_SUPPORTED = {"cuda": 801, "cublas": 15}  # cudaErrorNotSupported, CUBLAS_STATUS_NOT_SUPPORTED

# These carry a CUDA runtime of their own, compiled for GPUs. Without one they would leave memory as it is. So would
# cupy.cuda.cub, which CuPy calls only for CUPY_ACCELERATORS=cub (compiler.py).
REPLACED = ("cupy/cuda/thrust", "cupy/cuda/jitify", "cupy/random/_generator_api")
REPLACEMENT = '''"""In the place of a module that needs a GPU."""

available = False


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def refuse(*args, **kwargs):
        raise NotImplementedError(f"{__name__}.{name} is not there on the CUDA stand-in: it needs a GPU")

    return type(name, (), {"__new__": refuse})
'''

SETUP = """
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

extension = Extension(
    "cupy_backends.cuda.api.runtime", ["cupy_backends/cuda/api/runtime.pyx"], language="c++",
    include_dirs=[{include!r}, numpy.get_include(), ".", "cupy/_core/include"],
    define_macros=[("CUPY_CACHE_KEY", "stand_in")], extra_compile_args=["-O1", "-std=c++17", "-w"],
    extra_link_args=[*{libraries!r}, "-Wl,--unresolved-symbols=ignore-all"])
directives = dict.fromkeys(["embedsignature", "c_api_binop_methods", "freethreading_compatible"], True)
setup(name="stand_in", packages=[], ext_modules=cythonize(
    [extension], language_level=3,
    compiler_directives={{**directives, "binding": False, "warn.deprecated.IF": False}},
    compile_time_env={{"CUPY_USE_CUDA_PYTHON": False, "CUPY_CUFFT_STATIC": False, "CUPY_CYTHON_VERSION": "3.2",
                      "CUPY_CUDA_VERSION": 13000, "CUPY_HIP_VERSION": 0}}))
"""


def build(folder: pathlib.Path) -> pathlib.Path:
    """Make or update the environment in a folder; return its Python.

    What is there and was made from the same sources is kept.

    Raises
    ------
    RuntimeError
        If gcc or g++ is missing, or a command fails. The message has the command and the end of its output.
    """
    for compiler in ("gcc", "g++", "nm"):
        if shutil.which(compiler) is None:
            raise RuntimeError(f"the CUDA stand-in needs gcc, g++ and nm (binutils); {compiler} is not on PATH")
    folder = folder.absolute()
    python, stamp = folder / "bin" / "python", folder / ".built_from"
    if stamp.exists() and stamp.read_text() == _version():
        return python
    if not python.exists():
        _run([sys.executable, "-m", "venv", folder])
    _run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES, *TOOLS])
    # CuPy's files are changed below: begin with its own.
    _run([python, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", PACKAGES[0]])
    site = pathlib.Path(_run([python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]).strip())
    libraries = folder / "stand_in"
    shutil.rmtree(libraries, ignore_errors=True)
    libraries.mkdir()
    _build_libraries(site, libraries)
    _build_runtime(python, site, libraries)
    _refuse_the_rest(site, libraries)
    _change_cupy(site)
    shutil.rmtree(folder / "kernels", ignore_errors=True)
    found = _run([python, "-c", TRIAL])
    if found.split() != ["6", "[3.", "3.]"]:
        raise RuntimeError(f"CuPy on the stand-in computes wrong numbers: {found}")
    stamp.write_text(_version())
    return python


def _version() -> str:
    digest = hashlib.sha256(f"{sys.version} {NUMPY}".encode())
    for path in sorted(HERE.iterdir()):
        if path.suffix in {".c", ".h", ".py"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _run(command: list[object], cwd: pathlib.Path | None = None) -> str:
    # Without the caller's PYTHONPATH: the environment's own packages are meant. And CuPy's archive asks for no CUDA.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["CUPY_INSTALL_USE_STUB"] = "1"
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"failed: {' '.join(words)}\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def _include(site: pathlib.Path) -> pathlib.Path:
    return next((site / "nvidia").rglob("cuda_runtime.h")).parent


def _compile(site: pathlib.Path, library: pathlib.Path, sources: list[pathlib.Path], *flags: object) -> None:
    script = library.with_suffix(".map")  # CuPy asks for symbols with the library's name as their version
    script.write_text(f"{library.name} {{ global: *; }};\n")
    common = ["-std=gnu11", "-D_GNU_SOURCE", "-O3", "-march=native", "-fPIC", "-shared", "-w", f"-I{_include(site)}"]
    linking = [f"-Wl,-soname,{library.name}", f"-Wl,--version-script={script}", "-Wl,-rpath,$ORIGIN"]
    _run(["gcc", *common, "-o", library, *sources, *linking, *flags, "-ldl", "-lpthread"])


def _sources(names: tuple[str, ...]) -> list[pathlib.Path]:
    return [HERE / name for name in names]


def _build_libraries(site: pathlib.Path, libraries: pathlib.Path) -> None:
    _compile(site, libraries / "libcuda.so.1", _sources(RUNTIME))
    for name, sources in LIBRARIES.items():
        _compile(site, libraries / name, _sources(sources), libraries / "libcuda.so.1")


def _build_runtime(python: pathlib.Path, site: pathlib.Path, libraries: pathlib.Path) -> None:
    """Compile the one module of CuPy's that contains the CUDA runtime, and have it load the stand-in's libraries."""
    names = ["libcuda.so.1", *LIBRARIES]
    linked = [f"-Wl,-rpath,{libraries}", "-Wl,--no-as-needed", *(str(libraries / name) for name in names)]
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        _run([python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "cupy", f"cupy=={CUPY}", "-d", work])
        with tarfile.open(next(work.glob("cupy-*.tar.gz"))) as archive:
            archive.extractall(work, filter="data")
        source = next(path for path in work.iterdir() if path.is_dir())
        (source / "pyproject.toml").unlink(missing_ok=True)
        (source / "setup.py").write_text(SETUP.format(include=str(_include(site)), libraries=linked))
        _run([python, "setup.py", "-q", "build_ext", "--inplace", "--force"], cwd=source)
        built = next((source / "cupy_backends/cuda/api").glob("runtime.*.so"))
        shutil.copy(built, site / "cupy_backends/cuda/api" / built.name)


def _refuse_the_rest(site: pathlib.Path, libraries: pathlib.Path) -> None:
    """Add a refusal for each function that CuPy asks for and the stand-in does not have."""
    users = {
        "libcuda.so.1": ("cuda", "cupy_backends/cuda/api", "runtime.*.so", RUNTIME, ()),
        "libcublas.so.13": (
            *("cublas", "cupy_backends/cuda/libs", "cublas.*.so", LIBRARIES["libcublas.so.13"]),
            (libraries / "libcuda.so.1",),
        ),
    }
    for name, (prefix, folder, pattern, sources, linked) in users.items():
        user = next((site / folder).glob(pattern))
        asked = {word.split("@")[0] for word in _run(["nm", "-D", "--undefined-only", user]).split()}
        there = {word.split("@")[0] for word in _run(["nm", "-D", "--defined-only", libraries / name]).split()}
        missing = sorted(word for word in asked - there if word.startswith(prefix))
        refusals = libraries / f"{prefix}_refused.c"
        refusals.write_text("".join(f"int {word}(void) {{ return {NOT_SUPPORTED[prefix]}; }}\n" for word in missing))
        _compile(site, libraries / name, [*_sources(sources), refusals], *linked)


def _change_cupy(site: pathlib.Path) -> None:
    package = site / "cupy" / "_stand_in"
    package.mkdir(exist_ok=True)
    shutil.copy(HERE / "compiler.py", package / "__init__.py")
    shutil.copy(HERE / "device.h", package)
    include = site / "cupy" / "_core" / "include"
    parts = (include / "cupy" / "_cccl" / part for part in ("cub", "thrust", "libcudacxx"))
    found = [f"-I{folder}" for folder in (include, *parts, _include(site))]
    _run(["g++", "-x", "c++-header", "-w", *FLAGS, *found, "-o", package / "device.h.gch", package / "device.h"])
    for module in REPLACED:
        for library in (site / module).parent.glob(f"{pathlib.Path(module).name}.*.so"):
            library.unlink()
        (site / f"{module}.py").write_text(REPLACEMENT)
    start = site / "cupy" / "__init__.py"
    first = "from __future__ import annotations\n"
    prepared = f"{first}\nfrom cupy import _stand_in\n_stand_in.prepare()\n"
    start.write_text(start.read_text().replace(first, prepared, 1))
    with (site / "cupy" / "cuda" / "compiler.py").open("a") as file:
        file.write("\n\nfrom cupy._stand_in import compile_for_host as _compile_using_nvrtc_no_warning\n")
    with (site / "cupy" / "_core" / "__init__.py").open("a") as file:
        for kind in ("elementwise", "reduction", "routine"):
            file.write(f"from cupy._stand_in import set_accelerators as set_{kind}_accelerators\n")
