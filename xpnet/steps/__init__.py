"""Training steps: computation of a minibatch's gradient, and runners that drive the steps.

The two are separate objects. `compile_step` is the one place that puts them together.

- A `Gradient` computes the gradient of a minibatch: in full precision (`step.FullPrecision`), or in float16
  (`mixed.MixedPrecision`).
- A `Runner` drives steps: one by one (`step.OneByOne`), as a CUDA graph that wraps the first (`cuda_graph.CudaGraph`),
  a perceptron's by two threads in one compiled function (`two_threads.TwoThreads`), by shares of the minibatch on
  threads (`replicas.Replicas`) or processes (`ranks.Ranks`), or one part after the other (`sums.Microbatches`).
"""

from xpnet.steps.compiling import compile_step
from xpnet.steps.protocols import Gradient, Runner
from xpnet.steps.step import STEPS_PER_EXECUTION, Minibatches, TrainingStep

__all__ = ["STEPS_PER_EXECUTION", "Gradient", "Minibatches", "Runner", "TrainingStep", "compile_step"]
