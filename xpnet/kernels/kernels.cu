// CUDA kernels of the operations in xpnet/kernels/__init__.py, which says what each computes.
//
// Every loop over elements strides by the whole grid, so that any launch gives the same numbers. Compiled without
// contraction into fused multiply-adds (--fmad=false): all but exponentials and sums then have NumPy's bits. What
// changes from step to step (learning rates) comes as a Number: in a CUDA graph a value would be the same for ever.

typedef long long Index;

template <typename T>
struct Number {  // a number on the device, or if `at` is null, the one given
    const T* at;
    double given;
    __device__ T value() const { return at ? *at : T(given); }
};

#define FOR_ELEMENTS(i, n)                                                                                      \
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < (n); i += Index(gridDim.x) * blockDim.x)

// out[i, j] = x[index[i], j] / 255.
template <typename T>
__device__ void gather_pixels(const unsigned char* x, const Index* index, T* out, Index size, Index width) {
    FOR_ELEMENTS(i, size) {
        out[i] = T(x[index[i / width] * width + i % width]) / T(255);
    }
}

// y = max(x, 0), in which NaN stays NaN.
template <typename T>
__device__ void relu(const T* x, T* y, bool* mask, Index size) {
    FOR_ELEMENTS(i, size) {
        mask[i] = x[i] > T(0);
        y[i] = x[i] <= T(0) ? T(0) : x[i];
    }
}

// Softmax of each row and the mean cross entropy, by one block: a thread takes whole rows. The sum of the losses is
// formed in an order that depends on the block's size alone.
template <typename T, typename Label>
__device__ void softmax_cross_entropy(const T* x, const Label* t, T* y, T* loss, Index rows, Index classes) {
    __shared__ double sums[BLOCK];
    double sum = 0;
    for (Index n = threadIdx.x; n < rows; n += blockDim.x) {
        const T* scores = x + n * classes;
        T* row = y + n * classes;
        T largest = scores[0];
        for (Index k = 1; k < classes; ++k) largest = scores[k] > largest || scores[k] != scores[k] ? scores[k] : largest;
        T total = T(0);
        for (Index k = 0; k < classes; ++k) total += row[k] = exp(scores[k] - largest);
        for (Index k = 0; k < classes; ++k) row[k] /= total;
        bool valid = Index(t[n]) >= 0 && Index(t[n]) < classes;
        sum += valid ? double(log(total) - (scores[Index(t[n])] - largest)) : nan("");
    }
    sums[threadIdx.x] = sum;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) *loss = T(sums[0] * (1.0 / double(rows)));
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
__device__ void descend(T* p, const T* direction, Number<T> lr, Index size) {
    T step = lr.value();
    FOR_ELEMENTS(i, size) p[i] -= direction[i] * step;
}

// v = kept * v + g, p -= lr * (v, or with Nesterov kept * v + g).
template <typename T>
__device__ void descend_with_momentum(
    T* p, const T* g, T* v, Number<T> lr, double kept, bool nesterov, Index size) {
    T step = lr.value();
    FOR_ELEMENTS(i, size) {
        v[i] = v[i] * T(kept) + g[i];
        p[i] -= (nesterov ? v[i] * T(kept) + g[i] : v[i]) * step;
    }
}

// Adam's step, with lr and eps as its moving averages' bias makes them.
template <typename T>
__device__ void descend_by_moments(
    T* p, const T* g, T* m, T* v, Number<T> lr, Number<T> eps, double beta1, double beta2, Index size) {
    T step = lr.value(), least = eps.value();
    FOR_ELEMENTS(i, size) {
        m[i] = m[i] * T(beta1) + g[i] * T(1.0 - beta1);
        v[i] = v[i] * T(beta2) + g[i] * g[i] * T(1.0 - beta2);
        p[i] -= m[i] / (sqrt(v[i]) + least) * step;
    }
}

#define FOR_LABELS(T, Label)                                                                                    \
    extern "C" __global__ void softmax_cross_entropy_##T##_##Label(                                             \
        const T* x, const Label* t, T* y, T* loss, Index rows, Index classes) {                                 \
        softmax_cross_entropy(x, t, y, loss, rows, classes);                                                    \
    }                                                                                                           \
    extern "C" __global__ void softmax_cross_entropy_gradient_##T##_##Label(                                    \
        const T* y, const Label* t, T* dx, double scale, Index size, Index classes) {                           \
        softmax_cross_entropy_gradient(y, t, dx, scale, size, classes);                                         \
    }

#define FOR_FLOATS(T)                                                                                           \
    extern "C" __global__ void gather_pixels_##T(                                                               \
        const unsigned char* x, const Index* index, T* out, Index size, Index width) {                          \
        gather_pixels(x, index, out, size, width);                                                              \
    }                                                                                                           \
    extern "C" __global__ void relu_##T(const T* x, T* y, bool* mask, Index size) { relu(x, y, mask, size); }   \
    extern "C" __global__ void descend_##T(                                                                     \
        T* p, const T* direction, const T* lr_at, double lr, Index size) {                                      \
        descend(p, direction, Number<T>{lr_at, lr}, size);                                                      \
    }                                                                                                           \
    extern "C" __global__ void descend_with_momentum_##T(                                                       \
        T* p, const T* g, T* v, const T* lr_at, double lr, double kept, bool nesterov, Index size) {            \
        descend_with_momentum(p, g, v, Number<T>{lr_at, lr}, kept, nesterov, size);                             \
    }                                                                                                           \
    extern "C" __global__ void descend_by_moments_##T(                                                          \
        T* p, const T* g, T* m, T* v, const T* lr_at, double lr, const T* eps_at, double eps, double beta1,     \
        double beta2, Index size) {                                                                             \
        descend_by_moments(p, g, m, v, Number<T>{lr_at, lr}, Number<T>{eps_at, eps}, beta1, beta2, size);       \
    }                                                                                                           \
    FOR_LABELS(T, uint8)                                                                                        \
    FOR_LABELS(T, int32)                                                                                        \
    FOR_LABELS(T, int64)

typedef unsigned char uint8;
typedef int int32;
typedef long long int64;

FOR_FLOATS(float)
FOR_FLOATS(double)
