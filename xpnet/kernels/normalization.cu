// CUDA kernels of the operations in xpnet/kernels/normalization.py. They follow kernels.cu.

// Values of a batch by feature: value i of feature f is x[f * of_feature + i * of_value], without gaps. A block sums
// LANES features at a time if neighbors in memory are of different features, else one. The order of a sum depends only
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
                const T centered = x[all.at(f, i)] - mean;
                squares += double(centered) * centered;
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

#define FEATURES Index features, Index values, Index of_feature, Index of_value
#define THE_FEATURES \
    Features { features, values, of_feature, of_value }

#define FOR_BATCHES(T)                                                                                         \
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
    }

FOR_BATCHES(float)
FOR_BATCHES(double)
