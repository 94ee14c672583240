"""Benchmark results as pytest-benchmark would write them: small, of every kind, of a CPU and of a GPU."""

import importlib.util
import itertools
import json
import statistics
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "scripts" / "benchmark_report.py"

KIND_TITLES = {
    "gradient": "gradient",
    "growth": "growth",
    "layer": "layers",
    "step": "training step",
    "time to accuracy": "time to 97% test accuracy",
}
STEP_WORK = "784-50-10, batch 100, float32"
CPU_STEPS = {
    "xpnet": 163e-6,
    "matrix products alone": 111e-6,
    "the book": 812e-6,
    "PyTorch eager": 402e-6,
    "PyTorch compiled": 251.4e-6,
    "JAX jit": 377e-6,
    "JAX scanned": 190e-6,
    "scikit-learn": 701e-6,
}
GPU_STEPS = {
    "xpnet": 31.2e-6,
    "matrix products alone": 22.9e-6,
    "PyTorch eager": 480e-6,
    "PyTorch CUDA graph": 48.1e-6,
    "JAX scanned": 52e-6,
}
GRADIENTS = {
    "backpropagation": 90.3e-6,
    "numerical, batched": 0.197,
    "numerical, loop": 3.47,
    "numerical, the book's loop": 2.31,
}
LAYERS = {"Affine 784-50": (50e-6, 81e-6), "Relu": (4.1e-6, 3.3e-6), "SoftmaxWithLoss": (33e-6, 6.7e-6)}
GPU = {"gpu": "NVIDIA H100 80GB HBM3", "memory_bytes": 85_000_000_000, "cupy": "14.0.1"}


def measured(kind, party, seconds, *, role=None, work=STEP_WORK, hidden=50, device="cpu", spread=0.03, **more):
    """A benchmark as pytest-benchmark records it, with what xpnet's benchmarks add."""
    data = [seconds * (1 + spread * step) for step in (-1, -0.5, 0, 0.7, 4)]
    q1, _, q3 = statistics.quantiles(data, n=4, method="inclusive")
    environment = {"xpnet": "0.1.0", "python": "3.11.7", "processor": "AMD EPYC", "cores": 2, "threads": 2}
    environment |= {"device": device, "peers": {"torch": "2.13.0"}} | ({"cuda": GPU} if device != "cpu" else {})
    return {
        "group": f"{KIND_TITLES[kind]}: {work} on {device}",
        "name": party,
        "fullname": f"benchmarks/test_{kind}.py::test[{party}]",
        "params": None,
        "extra_info": {
            "kind": kind,
            "party": party,
            "role": role or {"matrix products alone": "limit"}.get(party, "xpnet" if "xpnet" in party else "peer"),
            "work": work,
            "network": f"784-{hidden}-10",
            "parameters": 795 * hidden + 10,
            "batch": 100,
            "dtype": "float32",
            "device": device,
            "environment": environment,
            **more,
        },
        "stats": {
            "min": min(data),
            "max": max(data),
            "mean": statistics.mean(data),
            "median": statistics.median(data),
            "q1": q1,
            "q3": q3,
            "iqr": q3 - q1,
            "rounds": 500,
        },
    }


def gradient_role(method):
    return "peer" if "book" in method else "xpnet"


def benchmarks_of(device):
    """Every kind of benchmark on a device."""
    steps, speed = (CPU_STEPS, 1) if device == "cpu" else (GPU_STEPS, 0.4)
    images = "784-50-10, batch 3, float64"
    sizes = (5, 10, 20, 50, 100)
    return [
        *(
            measured("step", party, seconds, device=device, spread=0.05 if "JAX" in party else 0.03)
            for party, seconds in steps.items()
        ),
        *(
            measured("gradient", name, speed * t, role=gradient_role(name), work=images, device=device)
            for name, t in GRADIENTS.items()
            if device == "cpu" or "book" not in name
        ),
        *(
            measured(
                "growth",
                name,
                speed * t * (hidden / 50) ** (0.3 if name == "backpropagation" else 1.9),
                role=gradient_role(name),
                work="784-h-10, batch 3, float64",
                hidden=hidden,
                device=device,
            )
            for name, t in GRADIENTS.items()
            for hidden in (sizes if "loop" not in name else sizes[:3])
            if device == "cpu" or "book" not in name
        ),
        *(
            measured("layer", "xpnet", speed * t, device=device, layer=layer, **{"pass": direction})
            for layer, passes in LAYERS.items()
            for direction, t in zip(("forward", "backward"), passes, strict=True)
        ),
        *(
            measured("time to accuracy", party, 3100 * t + 0.1, device=device, spread=0.1, steps=3200)
            for party, t in steps.items()
            if party != "matrix products alone"
        ),
    ]


ON_CPU, ON_GPU = benchmarks_of("cpu"), benchmarks_of("cuda:0")


def write_result(file, benchmarks):
    """Write benchmarks into a file as pytest-benchmark does."""
    facts = {"commit_info": {"id": "0123456789abcdef", "dirty": True}, "datetime": "2026-11-23T20:50:56+00:00"}
    file.write_text(json.dumps({"machine_info": {}, **facts, "benchmarks": benchmarks, "version": "5.3.1"}))
    return file


def of_kind(kind, benchmarks):
    return [b for b in benchmarks if b["extra_info"]["kind"] == kind]


def load_script():
    """Return scripts/benchmark_report.py as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_report", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def write_report(folder):
    """Let the script write Markdown and picture of all results into a folder; return the folder."""
    files = [write_result(folder / f"{name}.json", found) for name, found in (("cpu", ON_CPU), ("gpu", ON_GPU))]
    outputs = {"--markdown": "table.md", "--picture": "heart.png"}
    arguments = [*files, *itertools.chain(*((option, folder / name) for option, name in outputs.items()))]
    assert load_script().main([str(a) for a in arguments]) == 0
    return folder
