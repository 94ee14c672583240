#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: the whole test suite with CUDA required (a skipped test is a failure;
# the pages are left out, which need a browser and no GPU), the kernels under compute-sanitizer where that is there, and
# the benchmarks with their report. Writes text and JSON, with the GPU's facts, to benchmarks/results/<name of the GPU>/,
# or to the folder given as argument.
#
# Needs, in the Python it is given (PYTHON, by default .venv/bin/python): xpnet[cli,plot,test,bench,oracle], CuPy, and of
# the peers (torch, jax, scikit-learn) those that are to be compared with; and g++.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}

"$PYTHON" -m xpnet info --device cuda
name=$("$PYTHON" -c 'from xpnet import Device, environment as e; print(e.describe_cuda(Device("cuda"))["gpu"])')
out=${1:-benchmarks/results/$(tr -cs 'A-Za-z0-9\n' '-' <<<"$name")}
mkdir -p "$out"
"$PYTHON" -m xpnet info --device cuda >"$out/info.txt"

status=0
"$PYTHON" -m pytest --device cuda --no-skips -m 'not driverless' \
    --ignore tests/test_graph_page.py --ignore tests/test_benchmark_page.py 2>&1 | tee "$out/tests.txt" || status=1
if command -v compute-sanitizer >/dev/null; then
    compute-sanitizer --error-exitcode 1 "$PYTHON" -m pytest --device cuda -q tests/test_cuda_kernels.py \
        tests/test_captured.py 2>&1 | tee "$out/sanitizer.txt" || status=1
fi
"$PYTHON" benchmarks/gpu_facts.py --out "$out/gpu_facts.json" || status=1
"$PYTHON" -m pytest benchmarks -p no:cacheprovider --benchmark-json="$out/benchmarks.json" 2>&1 |
    tee "$out/benchmarks.txt" || status=1
"$PYTHON" scripts/benchmark_report.py "$out/benchmarks.json" --out "$out/benchmarks.html" \
    --markdown "$out/benchmarks.md" || status=1
"$PYTHON" benchmarks/full_run.py --device cuda --out "$out/full_run.json" 2>&1 | tee "$out/full_run.txt" || status=1
exit "$status"
