// What CUDA's own words mean on the host, where a kernel is called once for each thread (tests/cuda_on_host.py).
#include <cmath>
#include <condition_variable>
#include <mutex>

#define __global__
#define __device__
#define __shared__ static

struct Dim3 { unsigned x; };
static thread_local Dim3 threadIdx{0}, blockIdx{0};
static Dim3 blockDim{1}, gridDim{1};

using std::exp;
using std::log;
using std::nan;
using std::sqrt;

static std::mutex mutex;
static std::condition_variable condition;
static unsigned waiting = 0, generation = 0;

static void __syncthreads() {
    std::unique_lock<std::mutex> lock(mutex);
    unsigned now = generation;
    if (++waiting == blockDim.x) {
        waiting = 0;
        ++generation;
        condition.notify_all();
    } else {
        condition.wait(lock, [&] { return generation != now; });
    }
}

extern "C" void launch(unsigned grid, unsigned block) { gridDim.x = grid, blockDim.x = block; }
extern "C" void place(unsigned block, unsigned thread) { blockIdx.x = block, threadIdx.x = thread; }
