// What CUDA's own words mean on the host. Blocks run one after another. The threads of a block run one after another
// too, or, if they meet at barriers, as fibers that change at each barrier.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __shared__ static
#define __constant__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

using std::abs; using std::acos; using std::acosh; using std::asin; using std::asinh; using std::atan; using std::atan2;
using std::atanh; using std::cbrt; using std::ceil; using std::copysign; using std::cos; using std::cosh; using std::erf;
using std::erfc; using std::exp; using std::exp2; using std::expm1; using std::fabs; using std::floor; using std::fmod;
using std::frexp; using std::hypot; using std::isfinite; using std::isinf; using std::isnan; using std::ldexp;
using std::lgamma; using std::log; using std::log10; using std::log1p; using std::log2; using std::modf;
using std::nextafter; using std::pow; using std::rint; using std::round; using std::signbit; using std::sin;
using std::sinh; using std::sqrt; using std::tan; using std::tanh; using std::tgamma; using std::trunc;

struct Triple { unsigned x, y, z; };
static Triple threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

namespace stand_in {
enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };
const size_t STACK = 64 * 1024 + 9 * 64;  // an odd number of cache lines: tops of stacks share no cache set
static void enter();

#if defined(__x86_64__)
using Context = void*;  // the stack pointer; what a function must keep is on the stack

// ucontext.h's swapcontext also calls the operating system, for the mask of signals: a hundred times slower.
__attribute__((naked, noinline)) static void change(Context*, Context*) {
    asm("push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15; mov %rsp, (%rdi); mov (%rsi), %rsp;"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp; ret");
}
static void begin(Context* context, char* stack) {
    void** top = (void**)((uintptr_t)(stack + STACK) / 16 * 16);
    top[-2] = (void*)enter;  // where the first `ret` goes
    *context = top - 8;
}
#else
using Context = ucontext_t;

static void change(Context* from, Context* to) { swapcontext(from, to); }
static void begin(Context* context, char* stack) {
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = STACK;
    context->uc_link = nullptr;
    makecontext(context, enter, 0);
}
#endif

struct Fiber { Context context; State state; char* stack; uint64_t passed; };
static Fiber fibers[1024];  // no std::vector: its templates would be compiled with each kernel
static unsigned made;
static Context scheduler;
static void (*body)(void**);
static void** arguments;
static unsigned current;
alignas(16) static char dynamic_shared[48 * 1024];

static void enter() {
    body(arguments);
    fibers[current].state = DONE;
    change(&fibers[current].context, &scheduler);
}

static void wait(State barrier) {
    Fiber& fiber = fibers[current];
    fiber.state = barrier;
    change(&fiber.context, &scheduler);
}

static void place(unsigned thread) {
    current = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

// Let through the threads from `first` to `last` that wait at a barrier, if none is still on its way to it.
static bool release(unsigned first, unsigned last, State barrier) {
    bool waits = false;
    for (unsigned t = first; t < last; ++t) {
        if (fibers[t].state != barrier && fibers[t].state != DONE) return false;
        waits |= fibers[t].state == barrier;
    }
    for (unsigned t = first; t < last; ++t)
        if (fibers[t].state == barrier) fibers[t].state = READY;
    return waits;
}

static void run_fibers(unsigned threads) {
    for (; made < threads; ++made) fibers[made].stack = (char*)malloc(STACK);
    for (unsigned t = 0; t < threads; ++t) {
        begin(&fibers[t].context, fibers[t].stack);
        fibers[t].state = READY;
    }
    for (bool moves = true; moves;) {
        moves = false;
        for (unsigned t = 0; t < threads; ++t)
            if (fibers[t].state == READY) {
                place(t);
                change(&scheduler, &fibers[t].context);
                moves = true;
            }
        for (unsigned t = 0; t < threads; t += 32) moves |= release(t, t + 32 < threads ? t + 32 : threads, AT_WARP_BARRIER);
        moves |= release(0, threads, AT_BLOCK_BARRIER);
    }
    for (unsigned t = 0; t < threads; ++t)
        if (fibers[t].state != DONE) {
            fprintf(stderr, "CUDA stand-in: some threads of a block wait at a barrier that others never reach\n");
            abort();
        }
}

static void launch(void (*kernel)(void**), void** p, const unsigned* shape, bool meets) {
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    body = kernel;
    arguments = p;
    unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    for (unsigned z = 0; z < gridDim.z; ++z)
        for (unsigned y = 0; y < gridDim.y; ++y)
            for (unsigned x = 0; x < gridDim.x; ++x) {
                blockIdx = {x, y, z};
                if (meets) run_fibers(threads);
                else for (unsigned t = 0; t < threads; ++t) place(t), kernel(p);
            }
}

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** p, std::index_sequence<I...>) {
    kernel(*(std::remove_cv_t<std::remove_reference_t<A>>*)p[I]...);
}
template <class... A>
static void call(void (*kernel)(A...), void** p) { call(kernel, p, std::index_sequence_for<A...>{}); }

template <class... A>
static int sizes(long* into, void (*)(A...)) {
    long n = 0;
    ((into[n++] = sizeof(std::remove_reference_t<A>)), ...);
    into[n] = -1;
    return 0;
}

// What another thread of the warp passes, found by its number within the warp.
template <class T>
static T exchange(T value, unsigned lane) {
    static_assert(sizeof(T) <= 8, "shuffles pass at most 8 bytes");
    unsigned first = current / 32 * 32;
    memcpy(&fibers[current].passed, &value, sizeof value);
    wait(AT_WARP_BARRIER);
    unsigned source = lane < 32 && first + lane < blockDim.x * blockDim.y * blockDim.z ? first + lane : current;
    T found;
    memcpy(&found, &fibers[source].passed, sizeof found);
    wait(AT_WARP_BARRIER);
    return found;
}
}  // namespace stand_in

static inline void __syncthreads() { stand_in::wait(stand_in::AT_BLOCK_BARRIER); }
static inline void __syncwarp(unsigned = ~0u) { stand_in::wait(stand_in::AT_WARP_BARRIER); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

template <class T> static inline T __shfl_sync(unsigned, T value, int lane, int width = 32) {
    unsigned me = stand_in::current % 32;
    return stand_in::exchange(value, me / width * width + lane % width);
}
template <class T> static inline T __shfl_up_sync(unsigned, T value, unsigned delta, int width = 32) {
    unsigned me = stand_in::current % 32;
    return stand_in::exchange(value, me % width >= delta ? me - delta : me);
}
template <class T> static inline T __shfl_down_sync(unsigned, T value, unsigned delta, int width = 32) {
    unsigned me = stand_in::current % 32;
    return stand_in::exchange(value, me % width + delta < (unsigned)width ? me + delta : me);
}
template <class T> static inline T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
    unsigned me = stand_in::current % 32, lane = me ^ mask;
    return stand_in::exchange(value, lane / width <= me / width ? lane : me);
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
static inline int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
static inline double __longlong_as_double(long long x) { double y; memcpy(&y, &x, 8); return y; }
static inline long long __double_as_longlong(double x) { long long y; memcpy(&y, &x, 8); return y; }

template <class A, class B> static inline auto min(A a, B b) -> decltype(a + b) { return b < a ? b : a; }
template <class A, class B> static inline auto max(A a, B b) -> decltype(a + b) { return a < b ? b : a; }
template <class T> static inline T rsqrt(T x) { return T(1) / std::sqrt(x); }

// Blocks and threads take turns, so a plain read and a plain write are atomic.
template <class T, class F> static inline T stand_in_replace(T* at, F change) { T old = *at; *at = change(old); return old; }
template <class T, class U> static inline T atomicAdd(T* at, U v) { return stand_in_replace(at, [&](T x) { return T(x + T(v)); }); }
template <class T, class U> static inline T atomicSub(T* at, U v) { return stand_in_replace(at, [&](T x) { return T(x - T(v)); }); }
template <class T, class U> static inline T atomicExch(T* at, U v) { return stand_in_replace(at, [&](T) { return T(v); }); }
template <class T, class U> static inline T atomicMax(T* at, U v) { return stand_in_replace(at, [&](T x) { return x < T(v) ? T(v) : x; }); }
template <class T, class U> static inline T atomicMin(T* at, U v) { return stand_in_replace(at, [&](T x) { return T(v) < x ? T(v) : x; }); }
template <class T, class U> static inline T atomicAnd(T* at, U v) { return stand_in_replace(at, [&](T x) { return T(x & T(v)); }); }
template <class T, class U> static inline T atomicOr(T* at, U v) { return stand_in_replace(at, [&](T x) { return T(x | T(v)); }); }
template <class T, class U> static inline T atomicXor(T* at, U v) { return stand_in_replace(at, [&](T x) { return T(x ^ T(v)); }); }
template <class T, class U, class V> static inline T atomicCAS(T* at, U expected, V v) {
    return stand_in_replace(at, [&](T x) { return x == T(expected) ? T(v) : x; });
}

// Nearly all of CuPy's kernels include these: compiled with this header, once, they take no time.
#if __has_include(<cupy/carray.cuh>)
#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
#endif
