#!/usr/bin/env bash
# What needs an NVIDIA GPU, in two parts of bounded time; both by default, or the one that is named:
#
#     scripts/gpu_check.sh [first] [second]
#
#   first    about 4 minutes
#     facts      what launches, products and steps take, and the nodes of each product (benchmarks/gpu_facts.py)
#     kernels    the tests of kernels and of captured steps
#     step       training steps of 784-50-10 beside the bare products, PyTorch eager, its CUDA graph, and JAX scanned
#   second   about 6 minutes
#     tests      the whole suite with CUDA required, on several processes, but for the pages in a browser
#     works      training steps of the large network and of two convolutional ones
#     full-run   `xpnet train` beside the book's loop on the CPU
#     sanitizer  the kernels under compute-sanitizer, where that is there
#
# Each check has a limit in seconds. SLOWER=10 multiplies all limits, for a rehearsal on CuPy's stand-in for CUDA. A
# check's output is a text file, written as it comes. Figures that were measured before the limit are kept. Compiled
# PyTorch is left out: it compiles for minutes. The folder OUT, by default benchmarks/results/<name of the GPU>, gets the
# GPU's facts and all results. After each check, the archive OUT.tar.gz has them too.
#
# Runs from a bare checkout, without a network: xpnet need not be installed. Needs, in the Python it is given (PYTHON, by
# default .venv/bin/python): CuPy, pytest with pytest-xdist, hypothesis for most tests; for `step` and `works`
# pytest-benchmark, threadpoolctl, matplotlib and the peers (torch, jax); for `full-run` what xpnet[cli,plot] installs.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export OPENBLAS_NUM_THREADS=1 # several BLASes with threads of their own stall each other

check() { # NAME LIMIT COMMAND...: the check's status, or that of its limit
    local name=$1 limit=$(($2 * ${SLOWER:-1})) status=0
    shift 2
    echo "== $name, at most $limit s"
    SECONDS=0
    # SIGINT first: pytest then writes the results it has.
    timeout --signal=INT --kill-after=30 "$limit" "$@" 2>&1 | tee "$OUT/$name.txt" || status=$?
    case $status in
        0) echo "== $name passed in $SECONDS s" ;;
        124 | 137) echo "== $name was stopped after $limit s" ;;
        *) echo "== $name failed with status $status" ;;
    esac | tee -a "$OUT/$name.txt"
    [ "$status" = 0 ] || failed+=("$name")
    tar -czf "$OUT.tar.gz" -C "$(dirname "$OUT")" "$(basename "$OUT")"
}

tests() { # NAME LIMIT PROCESSES ARGUMENT...
    check "$1" "$2" "$PYTHON" -m pytest --device cuda -n "$3" --dist worksteal -v --durations=10 "${@:4}"
}

steps() { # NAME LIMIT WORKS: those of the training steps that the expression selects
    check "$1" "$2" "$PYTHON" -m pytest benchmarks/test_training_step.py -k "$3 and not parts" --device cuda \
        -p no:cacheprovider --benchmark-json="$OUT/$1.json" \
        --parties "matrix products alone,PyTorch eager,PyTorch CUDA graph,JAX scanned"
    [ ! -s "$OUT/$1.json" ] || "$PYTHON" scripts/benchmark_report.py "$OUT/$1.json" --markdown "$OUT/$1.md"
}

first() {
    check facts 60 "$PYTHON" benchmarks/gpu_facts.py --out "$OUT/gpu_facts.json"
    tests kernels 90 4 tests/test_cuda_{kernels,windows,products,graph}.py
    steps step 90 "784-50-10 and float32"
}

second() {
    tests tests 150 auto -m 'not driverless' --ignore tests/test_graph_page.py
    steps works 100 "(1024 or SimpleConvNet or LeNet5)"
    check full-run 50 "$PYTHON" benchmarks/full_run.py --device cuda --rounds 2 --out "$OUT/full_run.json"
    if command -v compute-sanitizer >/dev/null; then
        check sanitizer 60 compute-sanitizer --error-exitcode 1 "$PYTHON" -m pytest --device cuda -q \
            tests/test_cuda_{kernels,windows,products}.py
    else
        echo '== sanitizer was not run: there is no compute-sanitizer here' | tee "$OUT/sanitizer.txt"
    fi
}

for part in "$@"; do
    if [[ $part != first && $part != second ]]; then
        echo "gpu_check.sh: error: no part is called '$part'; there are first and second" >&2
        exit 2
    fi
done

info=$("$PYTHON" -c 'import json; from xpnet import Device, environment as e
print(json.dumps(e.describe(Device("cuda")), indent=1))')
name=$("$PYTHON" -c 'from xpnet import Device, environment as e; print(e.describe_cuda(Device("cuda"))["gpu"])')
OUT=${OUT:-benchmarks/results/$(tr -cs 'A-Za-z0-9\n' '-' <<<"$name")}
mkdir -p "$OUT"
tee "$OUT/info.json" <<<"$info"

failed=()
(($#)) || set -- first second
for part in "$@"; do
    "$part"
done
if ((${#failed[@]})); then
    echo "gpu_check.sh: not passed: ${failed[*]}" >&2
    exit 1
fi
