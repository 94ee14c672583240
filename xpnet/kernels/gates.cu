// CUDA kernels of the operations in xpnet/kernels/gates.py, a thread for each unit of each sample. They follow
// kernels.cu. Gate k of a unit is at row + k * units in arrays (N, G H), and at + k * size in arrays (G, N, H).

template <typename T>
__device__ inline T sigmoid(T x) { return (tanh(x * T(0.5)) + T(1)) * T(0.5); }

template <typename T>
__device__ void lstm_step(
    const T* a, const T* product, const T* c, T* gates, T* c_new, T* h_new, Index samples, Index units) {
    const Index size = samples * units;
    FOR_ELEMENTS(at, size) {
        const Index row = at / units * 4 * units + at % units;
        const T i = sigmoid(a[row] + product[row]);
        const T f = sigmoid(a[row + units] + product[row + units]);
        const T g = tanh(a[row + 2 * units] + product[row + 2 * units]);
        const T o = sigmoid(a[row + 3 * units] + product[row + 3 * units]);
        const T cell = f * c[at] + i * g, tanh_c = tanh(cell);
        gates[at] = i;
        gates[at + size] = f;
        gates[at + 2 * size] = g;
        gates[at + 3 * size] = o;
        gates[at + 4 * size] = tanh_c;
        c_new[at] = cell;
        h_new[at] = o * tanh_c;
    }
}

template <typename T>
__device__ void lstm_step_gradient(
    const T* gates, const T* c, const T* dh, T* dc, T* da, Index samples, Index units) {
    const Index size = samples * units;
    FOR_ELEMENTS(at, size) {
        const Index row = at / units * 4 * units + at % units;
        const T i = gates[at], f = gates[at + size], g = gates[at + 2 * size], o = gates[at + 3 * size];
        const T tanh_c = gates[at + 4 * size], through_h = dh[at] * tanh_c;
        const T dcell = dc[at] + (dh[at] - through_h * tanh_c) * o;
        da[row] = (i - i * i) * g * dcell;
        da[row + units] = (f - f * f) * c[at] * dcell;
        da[row + 2 * units] = (T(1) - g * g) * i * dcell;
        da[row + 3 * units] = (o - o * o) * through_h;
        dc[at] = dcell * f;
    }
}

template <typename T>
__device__ void gru_step(
    const T* a, const T* product, const T* bn, const T* h, T* gates, T* h_new, Index samples, Index units) {
    const Index size = samples * units;
    FOR_ELEMENTS(at, size) {
        const Index row = at / units * 3 * units + at % units;
        const T r = sigmoid(a[row] + product[row]);
        const T z = sigmoid(a[row + units] + product[row + units]);
        const T u = product[row + 2 * units] + bn[at % units];
        const T n = tanh(r * u + a[row + 2 * units]);
        gates[at] = r;
        gates[at + size] = z;
        gates[at + 2 * size] = n;
        gates[at + 3 * size] = u;
        h_new[at] = (h[at] - n) * z + n;
    }
}

template <typename T>
__device__ void gru_step_gradient(
    const T* gates, const T* h, T* dh, T* da, T* du, Index samples, Index units) {
    const Index size = samples * units;
    FOR_ELEMENTS(at, size) {
        const Index row = at / units * 3 * units + at % units;
        const T r = gates[at], z = gates[at + size], n = gates[at + 2 * size], u = gates[at + 3 * size];
        const T through_z = dh[at] * z;
        const T dz = (z - z * z) * dh[at] * (h[at] - n);
        const T dn = (T(1) - n * n) * (dh[at] - through_z);
        const T dr = (r - r * r) * u * dn;
        dh[at] = through_z;
        da[row] = du[row] = dr;
        da[row + units] = du[row + units] = dz;
        da[row + 2 * units] = dn;
        du[row + 2 * units] = dn * r;
    }
}

#define FOR_GATES(T)                                                                                            \
    extern "C" __global__ void lstm_step_##T(                                                                   \
        const T* a, const T* product, const T* c, T* gates, T* c_new, T* h_new, Index samples, Index units) {   \
        lstm_step(a, product, c, gates, c_new, h_new, samples, units);                                          \
    }                                                                                                           \
    extern "C" __global__ void lstm_step_gradient_##T(                                                          \
        const T* gates, const T* c, const T* dh, T* dc, T* da, Index samples, Index units) {                    \
        lstm_step_gradient(gates, c, dh, dc, da, samples, units);                                               \
    }                                                                                                           \
    extern "C" __global__ void gru_step_##T(                                                                    \
        const T* a, const T* product, const T* bn, const T* h, T* gates, T* h_new, Index samples, Index units) {\
        gru_step(a, product, bn, h, gates, h_new, samples, units);                                              \
    }                                                                                                           \
    extern "C" __global__ void gru_step_gradient_##T(                                                           \
        const T* gates, const T* h, T* dh, T* da, T* du, Index samples, Index units) {                          \
        gru_step_gradient(gates, h, dh, da, du, samples, units);                                                \
    }

FOR_GATES(float)
FOR_GATES(double)
