// Devices and errors of the CUDA runtime. The number of devices is CUDA_STAND_IN_DEVICES, 1 if unset.
#include <cuda_runtime.h>
#include <stdlib.h>
#include <string.h>
#include "stand_in.h"
#undef cudaGetDeviceProperties

static __thread int current;
static __thread cudaError_t last_error;
static char access_enabled[MAX_DEVICES][MAX_DEVICES];

int stand_in_device(void) { return current; }
int stand_in_can_access(int from, int to) { return from == to || access_enabled[from][to]; }

int stand_in_device_count(void) {
    const char *text = getenv("CUDA_STAND_IN_DEVICES");
    int count = text && *text ? atoi(text) : 1;
    return count < 0 ? 0 : count > MAX_DEVICES ? MAX_DEVICES : count;
}

static int exists(int device) { return device >= 0 && device < stand_in_device_count(); }
static cudaError_t failed(cudaError_t error) { return last_error = error; }

static const struct { int code; const char *name, *text; } errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory (CUDA_STAND_IN_MEMORY sets its size)"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected (CUDA_STAND_IN_DEVICES is 0)"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal (CUDA_STAND_IN_DEVICES sets how many)"},
    {cudaErrorInvalidKernelImage, "cudaErrorInvalidKernelImage", "the stand-in loads only what it compiled"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorSymbolNotFound, "cudaErrorSymbolNotFound", "named symbol not found"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "memory of another device, without peer access"},
    {cudaErrorPeerAccessAlreadyEnabled, "cudaErrorPeerAccessAlreadyEnabled", "peer access is already enabled"},
    {cudaErrorPeerAccessNotEnabled, "cudaErrorPeerAccessNotEnabled", "peer access has not been enabled"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "the CUDA stand-in does not have this function"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge", "operation would merge two captures"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched", "the capture began on another stream"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "a forked stream has not been joined"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation", "dependency on work outside of the capture"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent", "operation not permitted on an event of a capture"},
};

static int find(int code) {
    for (int i = 0; i < (int)(sizeof errors / sizeof *errors); ++i)
        if (errors[i].code == code) return i;
    return -1;
}

const char *cudaGetErrorName(cudaError_t code) { return find(code) < 0 ? "cudaErrorUnknown" : errors[find(code)].name; }
const char *cudaGetErrorString(cudaError_t code) { return find(code) < 0 ? "unknown error" : errors[find(code)].text; }

cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void) { return last_error; }

cudaError_t cudaDriverGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 13000, cudaSuccess; }

cudaError_t cudaGetDeviceCount(int *count) {
    *count = stand_in_device_count();
    return *count ? cudaSuccess : failed(cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *device) {
    *device = current;
    return exists(current) ? cudaSuccess : failed(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
    if (!exists(device)) return failed(cudaErrorInvalidDevice);
    current = device;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) { return failed(stand_in_synchronize(current)); }

// The numbers of an H100, which decide how CuPy cuts its work into blocks.
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    if (!exists(device)) return failed(cudaErrorInvalidDevice);
    switch ((int)attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxThreadsPerBlock: case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: *value = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *value = 64; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 48 * 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxRegistersPerBlock: case cudaDevAttrMaxRegistersPerMultiprocessor: *value = 65536; break;
    case cudaDevAttrTotalConstantMemory: *value = 65536; break;
    case cudaDevAttrUnifiedAddressing: *value = 1; break;
    default: *value = 0;
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    if (!exists(device)) return failed(cudaErrorInvalidDevice);
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "CUDA stand-in (no GPU)");
    size_t free_bytes;
    cudaMemGetInfo(&free_bytes, &properties->totalGlobalMem);
    properties->major = 9;
    properties->multiProcessorCount = 132;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->sharedMemPerBlock = 48 * 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties_v2(struct cudaDeviceProp *properties, int device) {
    return cudaGetDeviceProperties(properties, device);
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
    if (!exists(device)) return failed(cudaErrorInvalidDevice);
    if (length < 13) return failed(cudaErrorInvalidValue);
    strcpy(text, "0000:00:00.0");
    text[9] = '0' + device / 10, text[8] = '0', text[6] = '0' + device % 10;
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    if (!exists(device) || !exists(peer)) return failed(cudaErrorInvalidDevice);
    *can = device != peer;
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
    if (!exists(peer) || peer == current) return failed(cudaErrorInvalidDevice);
    if (flags) return failed(cudaErrorInvalidValue);
    if (access_enabled[current][peer]) return failed(cudaErrorPeerAccessAlreadyEnabled);
    access_enabled[current][peer] = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceDisablePeerAccess(int peer) {
    if (!exists(peer)) return failed(cudaErrorInvalidDevice);
    if (!access_enabled[current][peer]) return failed(cudaErrorPeerAccessNotEnabled);
    access_enabled[current][peer] = 0;
    return cudaSuccess;
}
