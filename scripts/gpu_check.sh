#!/usr/bin/env bash
# What needs an NVIDIA GPU, in parts; all of them by default, or those that are named:
#
#     scripts/gpu_check.sh [--parties NAMES] [PART ...]
#
#   facts       what launches, products and steps take (benchmarks/gpu_facts.py), written as it is measured
#   tests       the whole suite with CUDA required, but for the graph's page (a browser). What is skipped is listed at
#               the end: what only the stand-in for CUDA can count, or a second GPU, or a package that is not there
#   benchmarks  each module of benchmarks/ on the GPU with its peers, and the report of all; --parties '' leaves the
#               peers out, --parties 'PyTorch compiled,JAX jit' all others
#   full-run    `xpnet train` against the book's loop
#   sanitizer   the kernels and captured steps under compute-sanitizer, where that is there
#
# What matters most comes first, and each part writes its own files, so that what was measured before time ran out stays.
# Writes text and JSON, with the GPU's facts, to the folder OUT, by default benchmarks/results/<name of the GPU>, and after
# each part all of it as one archive, OUT.tar.gz.
#
# Runs from a bare checkout, without a network: xpnet need not be installed. Needs, in the Python it is given (PYTHON, by
# default .venv/bin/python): for `facts` CuPy; for `tests` pytest, and hypothesis for most of them; for `benchmarks`
# pytest-benchmark, threadpoolctl, matplotlib and the peers (torch, jax, scikit-learn) that are to be compared with; for
# `full-run` what xpnet[cli,plot] installs.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
all=(facts tests benchmarks full-run sanitizer)
parties=()
if [ "${1:-}" = --parties ]; then
    parties=("--parties=${2?gpu_check.sh: error: --parties needs names, or '' for none}")
    shift 2
fi
parts=("${@:-${all[@]}}")

facts() {
    "$PYTHON" benchmarks/gpu_facts.py --out "$OUT/gpu_facts.json"
}

tests() {
    "$PYTHON" -m pytest --device cuda -m 'not driverless' --durations=10 \
        --ignore tests/test_graph_page.py 2>&1 | tee "$OUT/tests.txt"
}

benchmarks() {
    local status=0 module name results=()
    for module in $(printf '%s\n' benchmarks/test_*.py | sort -r); do # training steps first
        name=$(basename "$module" .py)
        name=${name#test_}
        "$PYTHON" -m pytest "$module" --device cuda "${parties[@]}" -p no:cacheprovider \
            --benchmark-json="$OUT/$name.json" 2>&1 | tee "$OUT/$name.txt" || status=1
        [ ! -s "$OUT/$name.json" ] || results+=("$OUT/$name.json")
    done
    "$PYTHON" scripts/benchmark_report.py "${results[@]}" --markdown "$OUT/benchmarks.md" || status=1
    return "$status"
}

full-run() {
    "$PYTHON" benchmarks/full_run.py --device cuda --out "$OUT/full_run.json" 2>&1 | tee "$OUT/full_run.txt"
}

sanitizer() {
    if ! command -v compute-sanitizer >/dev/null; then
        echo 'not run: there is no compute-sanitizer here'
        return
    fi
    compute-sanitizer --error-exitcode 1 "$PYTHON" -m pytest --device cuda -q tests/test_cuda_kernels.py \
        tests/test_cuda_windows.py tests/test_cuda_products.py tests/test_cuda_graph.py 2>&1 | tee "$OUT/sanitizer.txt"
}

for part in "${parts[@]}"; do
    if [[ " ${all[*]} " != *" $part "* ]]; then
        echo "gpu_check.sh: error: no part is called '$part'; there are ${all[*]}" >&2
        exit 2
    fi
done

info=$("$PYTHON" -c 'import json; from xpnet import Device, environment as e
print(json.dumps(e.describe(Device("cuda")), indent=1))')
name=$("$PYTHON" -c 'from xpnet import Device, environment as e; print(e.describe_cuda(Device("cuda"))["gpu"])')
OUT=${OUT:-benchmarks/results/$(tr -cs 'A-Za-z0-9\n' '-' <<<"$name")}
mkdir -p "$OUT"
tee "$OUT/info.json" <<<"$info"

status=0
for part in "${parts[@]}"; do
    echo "== $part"
    "$part" || {
        echo "== $part failed"
        status=1
    }
    tar -czf "$OUT.tar.gz" -C "$(dirname "$OUT")" "$(basename "$OUT")"
done
exit "$status"
