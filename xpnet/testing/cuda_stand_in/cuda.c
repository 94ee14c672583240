// The CUDA driver's part that CuPy asks for. A module is a library that g++ compiled from the source of kernels
// (compiler.py), as NVRTC would for a GPU.
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "stand_in.h"

typedef void (*Launch)(void **arguments, const unsigned *shape, unsigned shared);
typedef struct { Launch launch; const long *sizes; } Function;
typedef struct { Function function; unsigned shape[6], shared; void *arguments[]; } Call;

int cuGetErrorName(int error, const char **name) { return *name = cudaGetErrorName(error), 0; }
int cuGetErrorString(int error, const char **text) { return *text = cudaGetErrorString(error), 0; }

int cuModuleLoadData(void **module, const char *image) {
    if (strncmp(image, "STAND-IN:", 9)) return cudaErrorInvalidKernelImage;
    dlopen("libstdc++.so.6", RTLD_NOW | RTLD_GLOBAL);  // for all of them: compiler.py links none, which would take time
    *module = dlopen(image + 9, RTLD_NOW | RTLD_LOCAL);
    if (!*module) fprintf(stderr, "%s\n", dlerror());
    return *module ? 0 : cudaErrorInvalidKernelImage;
}

int cuModuleUnload(void *module) { return 0; }  // graphs may still call its kernels

static void *symbol(void *module, const char *prefix, const char *name) {
    char text[4096];
    snprintf(text, sizeof text, "%s%s", prefix, name);
    return dlsym(module, text);
}

int cuModuleGetFunction(void **result, void *module, const char *name) {
    Function found = {(Launch)symbol(module, "stand_in_launch_", name), symbol(module, "stand_in_sizes_", name)};
    if (!found.launch) return cudaErrorSymbolNotFound;
    *result = memcpy(malloc(sizeof found), &found, sizeof found);
    return 0;
}

int cuModuleGetGlobal_v2(void **pointer, size_t *size, void *module, const char *name) { return cudaErrorNotSupported; }

static void run(void *data) {
    Call *call = data;
    call->function.launch(call->arguments, call->shape, call->shared);
}

int cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    unsigned long threads = (unsigned long)bx * by * bz, blocks = (unsigned long)gx * gy * gz;
    if (!threads || threads > 1024 || !blocks || gy > 65535 || gz > 65535 || bz > 64 || shared > 48 * 1024 || extra)
        return cudaErrorInvalidValue;
    long count = 0;
    size_t bytes = 0;
    for (; function->sizes[count] >= 0; ++count) {
        bytes += (function->sizes[count] + 15) / 16 * 16;
        void *pointer = NULL;  // a pointer, or an array, which begins with one
        if (function->sizes[count] >= (long)sizeof pointer) memcpy(&pointer, arguments[count], sizeof pointer);
        int error = pointer ? stand_in_check_access(pointer, 1, 0) : 0;
        if (error) return error;
    }
    size_t head = (sizeof(Call) + (count + 1) * sizeof(void *) + 15) / 16 * 16;
    Call *call = malloc(head + bytes);
    char *at = (char *)call + head;
    call->function = *function;
    memcpy(call->shape, (unsigned[]){gx, gy, gz, bx, by, bz}, sizeof call->shape);
    call->shared = shared;
    for (long i = 0; i < count; at += (function->sizes[i++] + 15) / 16 * 16)
        call->arguments[i] = memcpy(at, arguments[i], function->sizes[i]);
    return stand_in_submit(stream, KERNELS, run, call);
}

int cuLaunchCooperativeKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                              unsigned bz, unsigned shared, void *stream, void **arguments) {
    return cudaErrorNotSupported;
}

int cuFuncGetAttribute(int *value, int attribute, void *function) {
    *value = attribute == 0 ? 1024 : 0;  // CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK
    return 0;
}

int cuFuncSetAttribute(void *function, int attribute, int value) { return 0; }

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int block, size_t shared) {
    *blocks = 2048 / block;
    return 0;
}

int cuOccupancyMaxPotentialBlockSize(int *grid, int *block, void *function, void *size, size_t shared, int limit) {
    *grid = 132, *block = 256;
    return 0;
}

// A context is its device's number, plus 1.
int cuCtxGetCurrent(void **context) { return *context = (void *)(size_t)(stand_in_device() + 1), 0; }
int cuCtxSetCurrent(void *context) { return context ? cudaSetDevice((int)(size_t)context - 1) : 0; }
int cuCtxGetDevice(int *device) { return *device = stand_in_device(), 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return cudaErrorNotSupported; }
int cuStreamGetCtx(void *stream, void **context) { return cuCtxGetCurrent(context); }
