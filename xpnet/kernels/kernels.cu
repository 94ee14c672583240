// CUDA kernels of the operations in xpnet/kernels/operations.py, hashing.py and scaling.py, which document them.
// images.cu, normalization.cu and gates.cu follow in the same module.
//
// Every loop over elements has the stride of the whole grid, so that any launch gives the same results. Without fused
// multiply-adds (--fmad=false) all results but exponentials and sums have NumPy's bits. Arguments that change from step
// to step (learning rates) have the type Number: a CUDA graph would repeat the value of a plain argument.

typedef unsigned char uint8;
typedef int int32;
typedef long long int64;
typedef unsigned long long uint64;
typedef int64 Index;

template <typename T>
struct Number {  // *at, a number on the device; `given` if `at` is null
    const T* at;
    double given;
    __device__ T value() const { return at ? *at : T(given); }
};

#define FOR_ELEMENTS(i, n)                                                                                      \
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < (n); i += Index(gridDim.x) * blockDim.x)

// out[i, j] = x[index[i], j] / divisor for an index in [0, rows), else `missing`.
template <typename In, typename Out>
__device__ void gather(
    const In* x, const Index* index, Out* out, Index size, Index width, Index rows, Out divisor, Out missing) {
    FOR_ELEMENTS(i, size) {
        const Index row = index[i / width];
        out[i] = row < 0 || row >= rows ? missing : Out(x[row * width + i % width]) / divisor;
    }
}

// A float16 by its bits: sign, then a number up to that of infinity, then NaN. ReLU needs no arithmetic.
struct float16 {
    unsigned short bits;
    __device__ explicit float16(int zero) : bits(0) {}
    __device__ bool operator>(float16 zero) const { return bits > 0 && bits <= 0x7C00; }
    __device__ bool operator<=(float16 zero) const { return bits == 0 || (bits >= 0x8000 && bits <= 0xFC00); }
};

// y = max(x, 0), mask = x > 0. NaN stays NaN.
template <typename T>
__device__ void relu(const T* x, T* y, bool* mask, Index size) {
    FOR_ELEMENTS(i, size) {
        mask[i] = x[i] > T(0);
        y[i] = x[i] <= T(0) ? T(0) : x[i];
    }
}

// dx = dout where the mask is true, else 0 (NaN stays NaN).
template <typename T>
__device__ void relu_gradient(const T* dout, const bool* mask, T* dx, Index size) {
    FOR_ELEMENTS(i, size) {
        dx[i] = dout[i] * T(mask[i]);
    }
}

// The hash of xpnet/kernels/hashing.py.
__device__ uint64 mixed(uint64 z) {
    z = (z ^ z >> 27) * 0x3C79AC492BA7B653;
    z = (z ^ z >> 33) * 0x1C69B3F74AC4AE35;
    return z ^ z >> 27;
}

// mask = factor where the hash of state and index is at least `least`, else 0; y = x * mask unless x is null.
template <typename T>
__device__ void random_mask(T* mask, const uint64* state, Index least, T factor, const T* x, T* y, Index size) {
    const uint64 stream = mixed(*state);
    FOR_ELEMENTS(i, size) {
        const bool is_one = mixed(uint64(i) * 0x61C8864680B583EB + stream) >> 32 >= uint64(least);
        mask[i] = is_one ? factor : T(0);
        if (x) y[i] = x[i] * mask[i];
    }
}

const unsigned WARP = 32, ALL = ~0u;

// Softmax of each row, the mean cross entropy and, unless dx is null, dx = (y - t) * scale, by one block with a warp a
// row. The order in which the losses are added depends only on the size of the block, whole warps.
template <typename T, typename Label>
__device__ void softmax_cross_entropy(
    const T* x, const Label* t, T* y, T* dx, double scale, T* loss, Index rows, Index classes) {
    __shared__ double sums[WARP];
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    double sum = 0;
    for (Index n = warp; n < rows; n += warps) {
        const T* scores = x + n * classes;
        const Index label = t[n];
        T largest = scores[0], total = T(0);
        for (Index k = lane; k < classes; k += WARP)
            largest = scores[k] > largest || scores[k] != scores[k] ? scores[k] : largest;
        for (unsigned half = WARP / 2; half > 0; half /= 2) {
            const T other = __shfl_xor_sync(ALL, largest, half);
            largest = other > largest || other != other ? other : largest;
        }
        const T right = label >= 0 && label < classes ? scores[label] - largest : T(nan(""));
        for (Index k = lane; k < classes; k += WARP) total += y[n * classes + k] = exp(scores[k] - largest);
        for (unsigned half = WARP / 2; half > 0; half /= 2) total += __shfl_xor_sync(ALL, total, half);
        for (Index k = lane; k < classes; k += WARP) {
            const Index i = n * classes + k;
            const T scaled = (y[i] /= total) * T(scale);
            if (dx) dx[i] = k == label ? scaled - T(scale) : scaled;
        }
        sum += double(log(total) - right);
    }
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (unsigned other = 1; other < warps; ++other) sum += sums[other];
    *loss = T(sum * (1.0 / double(rows)));
}

// dx = (y - t) * scale for class ids t.
template <typename T, typename Label>
__device__ void softmax_cross_entropy_gradient(
    const T* y, const Label* t, T* dx, double scale, Index size, Index classes) {
    FOR_ELEMENTS(i, size) {
        T scaled = y[i] * T(scale);
        dx[i] = i % classes == Index(t[i / classes]) ? scaled - T(scale) : scaled;
    }
}

// p -= lr * direction.
template <typename T>
__device__ void sgd_update(T* p, const T* direction, Number<T> lr, Index size) {
    T step = lr.value();
    FOR_ELEMENTS(i, size) p[i] -= direction[i] * step;
}

// v = kept * v + g, p -= lr * v; with Nesterov p -= lr * (kept * v + g).
template <typename T>
__device__ void momentum_update(
    T* p, const T* g, T* v, Number<T> lr, double kept, bool nesterov, Index size) {
    T step = lr.value();
    FOR_ELEMENTS(i, size) {
        v[i] = v[i] * T(kept) + g[i];
        p[i] -= (nesterov ? v[i] * T(kept) + g[i] : v[i]) * step;
    }
}

// m, v = moving averages of g, g^2; p -= lr * m / (sqrt(v) + eps). lr and eps include the bias correction.
template <typename T>
__device__ void adam_update(
    T* p, const T* g, T* m, T* v, Number<T> lr, Number<T> eps, double beta1, double beta2, Index size) {
    T step = lr.value(), least = eps.value();
    FOR_ELEMENTS(i, size) {
        m[i] = m[i] * T(beta1) + g[i] * T(1.0 - beta1);
        v[i] = v[i] * T(beta2) + g[i] * g[i] * T(1.0 - beta2);
        p[i] -= m[i] / (sqrt(v[i]) + least) * step;
    }
}

// Sets `overflowed` if a number is infinite or NaN. All threads that write it write the same.
template <typename T>
__device__ void find_overflow(const T* x, bool* overflowed, Index size) {
    FOR_ELEMENTS(i, size) {
        if (x[i] - x[i] != T(0)) *overflowed = true;
    }
}

// Adapts the loss scale and its counts, and clears `overflowed` for the next step.
template <typename T>
__device__ void adapt_scale(
    T* scale, bool* overflowed, Index* good_steps, Index interval, Index* updates, Index counts) {
    if (blockIdx.x + threadIdx.x > 0) return;
    const Index good = *overflowed ? 0 : *good_steps + 1;
    *scale *= *overflowed ? T(0.5) : good >= interval ? T(2) : T(1);
    *good_steps = good >= interval ? 0 : good;
    for (Index i = 0; i < counts; ++i) updates[i] += !*overflowed;
    *overflowed = false;
}

#define FOR_LABELS(T, Label)                                                                                    \
    extern "C" __global__ void __launch_bounds__(1024) softmax_cross_entropy_##T##_##Label(                     \
        const T* x, const Label* t, T* y, T* dx, double scale, T* loss, Index rows, Index classes) {            \
        softmax_cross_entropy(x, t, y, dx, scale, loss, rows, classes);                                         \
    }                                                                                                           \
    extern "C" __global__ void softmax_cross_entropy_gradient_##T##_##Label(                                    \
        const T* y, const Label* t, T* dx, double scale, Index size, Index classes) {                           \
        softmax_cross_entropy_gradient(y, t, dx, scale, size, classes);                                         \
    }

#define FOR_ROWS(T, missing)                                                                                    \
    extern "C" __global__ void gather_##T(                                                                      \
        const T* x, const Index* index, T* out, Index size, Index width, Index rows) {                          \
        gather(x, index, out, size, width, rows, T(1), T(missing));                                             \
    }

#define FOR_RELU(T)                                                                                            \
    extern "C" __global__ void relu_##T(const T* x, T* y, bool* mask, Index size) { relu(x, y, mask, size); }

#define FOR_FLOATS(T)                                                                                           \
    extern "C" __global__ void gather_pixels_##T(                                                               \
        const uint8* x, const Index* index, T* out, Index size, Index width, Index rows) {                      \
        gather(x, index, out, size, width, rows, T(255), T(nan("")));                                           \
    }                                                                                                           \
    FOR_ROWS(T, nan(""))                                                                                        \
    FOR_RELU(T)                                                                                                 \
    extern "C" __global__ void random_mask_##T(                                                                 \
        T* mask, const uint64* state, Index least, double factor, const T* x, T* y, Index size) {               \
        random_mask(mask, state, least, T(factor), x, y, size);                                                 \
    }                                                                                                           \
    extern "C" __global__ void relu_gradient_##T(const T* dout, const bool* mask, T* dx, Index size) {          \
        relu_gradient(dout, mask, dx, size);                                                                    \
    }                                                                                                           \
    extern "C" __global__ void sgd_update_##T(                                                                  \
        T* p, const T* direction, const T* lr_at, double lr, Index size) {                                      \
        sgd_update(p, direction, Number<T>{lr_at, lr}, size);                                                   \
    }                                                                                                           \
    extern "C" __global__ void momentum_update_##T(                                                             \
        T* p, const T* g, T* v, const T* lr_at, double lr, double kept, bool nesterov, Index size) {            \
        momentum_update(p, g, v, Number<T>{lr_at, lr}, kept, nesterov, size);                                   \
    }                                                                                                           \
    extern "C" __global__ void adam_update_##T(                                                                 \
        T* p, const T* g, T* m, T* v, const T* lr_at, double lr, const T* eps_at, double eps, double beta1,     \
        double beta2, Index size) {                                                                             \
        adam_update(p, g, m, v, Number<T>{lr_at, lr}, Number<T>{eps_at, eps}, beta1, beta2, size);              \
    }                                                                                                           \
    extern "C" __global__ void find_overflow_##T(const T* x, bool* overflowed, Index size) {                   \
        find_overflow(x, overflowed, size);                                                                    \
    }                                                                                                          \
    extern "C" __global__ void adapt_scale_##T(                                                                \
        T* scale, bool* overflowed, Index* good_steps, Index interval, Index* updates, Index counts) {         \
        adapt_scale(scale, overflowed, good_steps, interval, updates, counts);                                 \
    }                                                                                                          \
    FOR_LABELS(T, uint8)                                                                                        \
    FOR_LABELS(T, int32)                                                                                        \
    FOR_LABELS(T, int64)

FOR_FLOATS(float)
FOR_FLOATS(double)
FOR_RELU(float16)
FOR_ROWS(uint8, -1)
FOR_ROWS(int32, -1)
FOR_ROWS(int64, -1)
