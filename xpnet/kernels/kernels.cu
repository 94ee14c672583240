// CUDA kernels of the operations in xpnet/kernels/operations.py and images.py, which document them.
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

// Values of a batch by feature: value i of feature f is x[f * of_feature + i * of_value], without gaps. A block sums
// LANES features at a time if neighbours in memory are of different features, else one. The order of a sum depends only
// on the size of the block.
struct Features {
    Index features, values, of_feature, of_value;
    static const Index LANES = 32;
    __device__ Index lanes() const { return of_value == 1 ? 1 : LANES; }
    __device__ Index lane() const { return threadIdx.x % lanes(); }
    __device__ Index row() const { return threadIdx.x / lanes(); }
    __device__ Index rows() const { return blockDim.x / lanes(); }
    __device__ Index of(Index i) const { return i / of_feature % features; }
    __device__ Index at(Index f, Index i) const { return f * of_feature + i * of_value; }
};

#define FOR_FEATURES(f, all)                                                                                    \
    for (Index f = blockIdx.x * all.lanes() + all.lane(); f - all.lane() < all.features; f += gridDim.x * all.lanes())

// The sum, for each of the lanes, of a number per thread of the block. All threads must call it.
__device__ inline double sum_of_lane(double* sums, double sum, Index lanes, Index lane) {
    __syncthreads();
    sums[threadIdx.x] = sum;
    for (unsigned half = blockDim.x / 2; half >= lanes; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    return sums[lane];
}

// Mean and 1 / sqrt(variance + eps) of each feature, the latter also times gamma; running averages unless null.
template <typename T>
__device__ void batch_statistics(
    const T* x, const T* gamma, T* means, T* inverses, T* scales, T* running_mean, T* running_var, double kept,
    double eps, Features all) {
    __shared__ double sums[BLOCK];
    const Index n = all.values;
    FOR_FEATURES(f, all) {
        double sum = 0, squares = 0;
        if (f < all.features)
            for (Index i = all.row(); i < n; i += all.rows()) sum += x[all.at(f, i)];
        const T mean = T(sum_of_lane(sums, sum, all.lanes(), all.lane()) / double(n));
        if (f < all.features)
            for (Index i = all.row(); i < n; i += all.rows()) {
                const T centred = x[all.at(f, i)] - mean;
                squares += double(centred) * centred;
            }
        const T var = T(sum_of_lane(sums, squares, all.lanes(), all.lane()) / double(n));
        if (f >= all.features || all.row() > 0) continue;
        means[f] = mean;
        inverses[f] = T(1) / sqrt(var + T(eps));
        scales[f] = gamma[f] * inverses[f];
        if (!running_mean) continue;
        const T unbiased = var * T(double(n) / double(n > 1 ? n - 1 : 1));
        running_mean[f] = running_mean[f] * T(kept) + T(1.0 - kept) * mean;
        running_var[f] = running_var[f] * T(kept) + T(1.0 - kept) * unbiased;
    }
}

// xn = (x - mean) * inverse, y = xn * gamma + beta.
template <typename T>
__device__ void normalize(
    const T* x, const T* means, const T* inverses, const T* gamma, const T* beta, T* xn, T* y, Features all) {
    FOR_ELEMENTS(i, all.features * all.values) {
        const Index f = all.of(i);
        xn[i] = (x[i] - means[f]) * inverses[f];
        y[i] = xn[i] * gamma[f] + beta[f];
    }
}

// dgamma = sum dout xn and dbeta = sum dout of each feature.
template <typename T>
__device__ void normalization_sums(const T* dout, const T* xn, T* dgamma, T* dbeta, Features all) {
    __shared__ double sums[BLOCK];
    FOR_FEATURES(f, all) {
        double gain = 0, shift = 0;
        if (f < all.features)
            for (Index i = all.row(); i < all.values; i += all.rows()) {
                const Index at = all.at(f, i);
                gain += double(dout[at]) * xn[at];
                shift += dout[at];
            }
        gain = sum_of_lane(sums, gain, all.lanes(), all.lane());
        shift = sum_of_lane(sums, shift, all.lanes(), all.lane());
        if (f < all.features && all.row() == 0) dgamma[f] = T(gain), dbeta[f] = T(shift);
    }
}

// dx = (dout - mean(dout) - xn mean(dout xn)) * scale.
template <typename T>
__device__ void normalization_gradient(
    const T* dout, const T* xn, const T* scales, const T* dgamma, const T* dbeta, T* dx, Features all) {
    const T share = T(1.0 / double(all.values));
    FOR_ELEMENTS(i, all.features * all.values) {
        const Index f = all.of(i);
        dx[i] = (dout[i] - dbeta[f] * share - xn[i] * (dgamma[f] * share)) * scales[f];
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

// The definition is in xpnet/kernels/scaling.py.
template <typename T>
__device__ void adapt_scale(T* scale, bool finite, Index* good_steps, Index interval, Index* updates, Index counts) {
    if (blockIdx.x + threadIdx.x > 0) return;
    const Index good = finite ? *good_steps + 1 : 0;
    *scale *= !finite ? T(0.5) : good >= interval ? T(2) : T(1);
    *good_steps = good >= interval ? 0 : good;
    for (Index i = 0; i < counts; ++i) updates[i] += finite;
}

// Windows that move over images (xpnet/windows.py). Images have shape (channels, height, width, samples), places have
// shape (channels, down, across, samples), both in C order.
struct Windows {
    Index height, width, down, across, h, w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, samples;
};

struct Position {
    Index channel, y, x, sample;
    __device__ Position(Index i, Index height, Index width, Index samples)
        : channel(i / samples / width / height), y(i / samples / width % height), x(i / samples % width),
          sample(i % samples) {}
};

// Place, along one axis, of the window whose pixel number k is this pixel; -1 if there is none.
__device__ inline Index place_of(Index pixel, Index k, Index stride, Index pad, Index dilation, Index places) {
    Index from_first = pixel + pad - k * dilation;
    return from_first >= 0 && from_first % stride == 0 && from_first / stride < places ? from_first / stride : -1;
}

// out += the windows in rows [start, stop) of places, or = if start is 0; seen has shape (channels, h, w, stop - start, across, samples).
template <typename T>
__device__ void add_windows(const T* seen, T* out, Windows win, Index start, Index stop, Index size) {
    FOR_ELEMENTS(i, size) {
        Position at(i, win.height, win.width, win.samples);
        T sum = start == 0 ? T(0) : out[i];
        for (Index k = 0; k < win.h; ++k) {
            Index row = place_of(at.y, k, win.stride_y, win.pad_y, win.dilation_y, win.down);
            if (row < start || row >= stop) continue;
            for (Index l = 0; l < win.w; ++l) {
                Index column = place_of(at.x, l, win.stride_x, win.pad_x, win.dilation_x, win.across);
                if (column < 0) continue;
                Index window = (at.channel * win.h + k) * win.w + l;
                sum += seen[((window * (stop - start) + row - start) * win.across + column) * win.samples + at.sample];
            }
        }
        out[i] = sum;
    }
}

// y = the maximum of each window, index = the number of its pixel. With a mask also ReLU: y = max(y, 0), mask = y > 0.
template <typename T>
__device__ void max_pool(const T* x, T* y, uint8* index, bool* mask, Windows win, Index size) {
    FOR_ELEMENTS(i, size) {
        Position at(i, win.down, win.across, win.samples);
        T largest = log(T(0));  // minus infinity
        uint8 chosen = 0;
        for (Index k = 0; k < win.h; ++k) {
            Index row = at.y * win.stride_y - win.pad_y + k * win.dilation_y;
            if (row < 0 || row >= win.height) continue;
            for (Index l = 0; l < win.w; ++l) {
                Index column = at.x * win.stride_x - win.pad_x + l * win.dilation_x;
                if (column < 0 || column >= win.width) continue;
                T value = x[((at.channel * win.height + row) * win.width + column) * win.samples + at.sample];
                if (value > largest || value != value) largest = value, chosen = uint8(k * win.w + l);
            }
        }
        y[i] = mask && largest <= T(0) ? T(0) : largest;
        if (mask) mask[i] = largest > T(0);
        index[i] = chosen;
    }
}

// dx = the sum of dout over the windows whose maximum is this pixel. With a mask, dout is that of the ReLU.
template <typename T>
__device__ void max_pool_gradient(
    const T* dout, const uint8* index, const bool* mask, T* dx, Windows win, Index size) {
    FOR_ELEMENTS(i, size) {
        Position at(i, win.height, win.width, win.samples);
        T sum = T(0);
        for (Index k = 0; k < win.h; ++k) {
            Index row = place_of(at.y, k, win.stride_y, win.pad_y, win.dilation_y, win.down);
            if (row < 0) continue;
            for (Index l = 0; l < win.w; ++l) {
                Index column = place_of(at.x, l, win.stride_x, win.pad_x, win.dilation_x, win.across);
                if (column < 0) continue;
                Index place = ((at.channel * win.down + row) * win.across + column) * win.samples + at.sample;
                if (index[place] == k * win.w + l) sum += mask ? dout[place] * T(mask[place]) : dout[place];
            }
        }
        dx[i] = sum;
    }
}

#define WINDOWS                                                                                                 \
    Index height, Index width, Index down, Index across, Index h, Index w, Index stride_y, Index stride_x,      \
        Index pad_y, Index pad_x, Index dilation_y, Index dilation_x, Index samples
#define THE_WINDOWS                                                                                             \
    Windows { height, width, down, across, h, w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, samples }

#define FEATURES Index features, Index values, Index of_feature, Index of_value
#define THE_FEATURES \
    Features { features, values, of_feature, of_value }

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

#define FOR_FLOATS(T)                                                                                           \
    extern "C" __global__ void gather_pixels_##T(                                                               \
        const uint8* x, const Index* index, T* out, Index size, Index width, Index rows) {                      \
        gather(x, index, out, size, width, rows, T(255), T(nan("")));                                           \
    }                                                                                                           \
    FOR_ROWS(T, nan(""))                                                                                        \
    extern "C" __global__ void relu_##T(const T* x, T* y, bool* mask, Index size) { relu(x, y, mask, size); }   \
    extern "C" __global__ void random_mask_##T(                                                                 \
        T* mask, const uint64* state, Index least, double factor, const T* x, T* y, Index size) {               \
        random_mask(mask, state, least, T(factor), x, y, size);                                                 \
    }                                                                                                           \
    extern "C" __global__ void batch_statistics_##T(                                                            \
        const T* x, const T* gamma, T* means, T* inverses, T* scales, T* running_mean, T* running_var,          \
        double kept, double eps, FEATURES) {                                                                    \
        batch_statistics(x, gamma, means, inverses, scales, running_mean, running_var, kept, eps, THE_FEATURES);\
    }                                                                                                           \
    extern "C" __global__ void normalize_##T(                                                                   \
        const T* x, const T* means, const T* inverses, const T* gamma, const T* beta, T* xn, T* y, FEATURES) {  \
        normalize(x, means, inverses, gamma, beta, xn, y, THE_FEATURES);                                        \
    }                                                                                                           \
    extern "C" __global__ void normalization_sums_##T(                                                          \
        const T* dout, const T* xn, T* dgamma, T* dbeta, FEATURES) {                                            \
        normalization_sums(dout, xn, dgamma, dbeta, THE_FEATURES);                                              \
    }                                                                                                           \
    extern "C" __global__ void normalization_gradient_##T(                                                      \
        const T* dout, const T* xn, const T* scales, const T* dgamma, const T* dbeta, T* dx, FEATURES) {        \
        normalization_gradient(dout, xn, scales, dgamma, dbeta, dx, THE_FEATURES);                              \
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
    extern "C" __global__ void adapt_scale_##T(                                                                 \
        T* scale, const bool* finite, Index* good_steps, Index interval, Index* updates, Index counts) {        \
        adapt_scale(scale, *finite, good_steps, interval, updates, counts);                                     \
    }                                                                                                           \
    extern "C" __global__ void add_windows_##T(                                                                 \
        const T* seen, T* out, WINDOWS, Index start, Index stop, Index size) {                                  \
        add_windows(seen, out, THE_WINDOWS, start, stop, size);                                                 \
    }                                                                                                           \
    extern "C" __global__ void max_pool_##T(const T* x, T* y, uint8* index, bool* mask, WINDOWS, Index size) {  \
        max_pool(x, y, index, mask, THE_WINDOWS, size);                                                         \
    }                                                                                                           \
    extern "C" __global__ void max_pool_gradient_##T(                                                           \
        const T* dout, const uint8* index, const bool* mask, T* dx, WINDOWS, Index size) {                      \
        max_pool_gradient(dout, index, mask, dx, THE_WINDOWS, size);                                            \
    }                                                                                                           \
    FOR_LABELS(T, uint8)                                                                                        \
    FOR_LABELS(T, int32)                                                                                        \
    FOR_LABELS(T, int64)

FOR_FLOATS(float)
FOR_FLOATS(double)
FOR_ROWS(uint8, -1)
FOR_ROWS(int32, -1)
FOR_ROWS(int64, -1)
