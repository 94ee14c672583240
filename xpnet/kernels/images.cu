// CUDA kernels of the operations in xpnet/kernels/images.py. They follow kernels.cu.

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

#define FOR_IMAGES(T)                                                                                          \
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
    }

FOR_IMAGES(float)
FOR_IMAGES(double)
