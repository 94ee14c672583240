// Memory of the CUDA runtime: the host's, with an owner for each block, a size for each device, and copies that check.
//
// Fresh memory is full of 0xFF: NaN as a floating point number, -1 as an integer. So what nobody wrote shows.
#include <cuda_runtime.h>
#include <stdlib.h>
#include <string.h>
#include "stand_in.h"

typedef struct { char *start; size_t size; int device; } Block;  // device -1: pinned memory of the host

static Block *blocks;  // in the order of their addresses
static int block_count, block_room;
static size_t used[MAX_DEVICES];

static size_t capacity(void) {  // bytes on each device
    const char *text = getenv("CUDA_STAND_IN_MEMORY");
    return text && *text ? strtoull(text, NULL, 10) : (size_t)16 << 30;
}

// The number of blocks that start at or before an address.
static int blocks_before(const void *pointer) {
    int low = 0, high = block_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (blocks[middle].start <= (const char *)pointer) low = middle + 1;
        else high = middle;
    }
    return low;
}

static Block *owner(const void *pointer) {
    int before = blocks_before(pointer);
    if (!before) return NULL;
    Block *block = &blocks[before - 1];
    return (const char *)pointer < block->start + block->size ? block : NULL;
}

static cudaError_t allocate(void **pointer, size_t size, int device) {
    size_t rounded = (size + 511) / 512 * 512;
    *pointer = NULL;
    if (!size) return cudaSuccess;
    stand_in_lock();
    int full = device >= 0 && (rounded < size || rounded > capacity() || used[device] > capacity() - rounded);
    char *start = full ? NULL : aligned_alloc(512, rounded);
    if (start && block_count == block_room) {
        block_room = 2 * block_room + 64;
        blocks = realloc(blocks, block_room * sizeof *blocks);
    }
    if (start) {
        memset(start, 0xFF, rounded);
        int at = blocks_before(start);
        memmove(blocks + at + 1, blocks + at, (block_count++ - at) * sizeof *blocks);
        blocks[at] = (Block){start, rounded, device};
        if (device >= 0) used[device] += rounded, stand_in_count(ALLOCATIONS, 1);
    }
    stand_in_unlock();
    *pointer = start;
    return start ? cudaSuccess : cudaErrorMemoryAllocation;
}

static cudaError_t release(void *pointer, int on_device) {
    if (!pointer) return cudaSuccess;
    stand_in_lock();
    Block *block = owner(pointer);
    cudaError_t error = cudaErrorInvalidValue;
    if (block && block->start == pointer && (block->device >= 0) == on_device) {
        if (on_device) used[block->device] -= block->size;
        memmove(block, block + 1, (char *)(blocks + block_count--) - (char *)(block + 1));
        free(pointer);
        error = cudaSuccess;
    }
    stand_in_unlock();
    return error;
}

cudaError_t cudaMalloc(void **pointer, size_t size) {
    int error = stand_in_forbidden();
    return error ? error : allocate(pointer, size, stand_in_device());
}

cudaError_t cudaFree(void *pointer) {
    int error = stand_in_forbidden();
    return error ? error : release(pointer, 1);
}

cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) {
    int error = stand_in_forbidden();
    return error ? error : allocate(pointer, size, -1);
}

cudaError_t cudaFreeHost(void *pointer) {
    int error = stand_in_forbidden();
    return error ? error : release(pointer, 0);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    *total = capacity();
    *available = capacity() - used[stand_in_device()];
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
    memset(attributes, 0, sizeof *attributes);
    stand_in_lock();
    Block *block = owner(pointer);
    attributes->type = !block ? cudaMemoryTypeUnregistered : block->device < 0 ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    attributes->device = block && block->device >= 0 ? block->device : stand_in_device();
    if (block) attributes->devicePointer = (void *)pointer;
    if (block && block->device < 0) attributes->hostPointer = (void *)pointer;
    stand_in_unlock();
    return cudaSuccess;
}

int stand_in_check_access(const void *pointer, size_t size, int known) {
    stand_in_lock();
    Block *block = owner(pointer);
    int error = known && !block ? cudaErrorIllegalAddress : cudaSuccess;
    if (block && block->device >= 0 && !stand_in_can_access(stand_in_device(), block->device)) error = cudaErrorIllegalAddress;
    if (block && (const char *)pointer + size > block->start + block->size) error = cudaErrorIllegalAddress;
    stand_in_unlock();
    return error;
}

// Whether `size` bytes from a pointer are on a device (1), on the host (0), or run past the end of their block (-1).
static int place(const void *pointer, size_t size) {
    Block *block = owner(pointer);
    if (block && (size_t)(block->start + block->size - (const char *)pointer) < size) return -1;
    return block && block->device >= 0;
}

typedef struct { void *to; const void *from; size_t size; int value; } Move;

static void copy(void *data) { Move *move = data; memmove(move->to, move->from, move->size); }
static void fill(void *data) { Move *move = data; memset(move->to, move->value, move->size); }

static cudaError_t submit(cudaStream_t stream, enum counter kind, void (*work)(void *), Move move) {
    Move *data = malloc(sizeof *data);
    *data = move;
    return stand_in_submit(stream, kind, work, data);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
    if (!size) return cudaSuccess;
    stand_in_lock();
    int target = place(to, size), source = place(from, size);
    stand_in_unlock();
    static const int targets[] = {0, 1, 0, 1}, sources[] = {0, 0, 1, 1};
    int agrees = kind == cudaMemcpyDefault || (kind < 4 && targets[kind] == target && sources[kind] == source);
    if (target < 0 || source < 0 || !agrees) return cudaErrorInvalidValue;
    enum counter counter = target ? source ? COPIES_ON_DEVICE : COPIES_TO_DEVICE : COPIES_TO_HOST;
    return submit(stream, counter, copy, (Move){to, from, size, 0});
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    cudaError_t error = stand_in_forbidden();
    if (!error) error = cudaMemcpyAsync(to, from, size, kind, 0);
    if (!error) stand_in_count(SYNCHRONIZATIONS, 1);
    return error;
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t size, cudaStream_t s) {
    stand_in_lock();
    Block *target = owner(to), *source = owner(from);
    int agrees = target && source && target->device == to_device && source->device == from_device;
    stand_in_unlock();
    return agrees ? cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, s) : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpyPeer(void *to, int to_device, const void *from, int from_device, size_t size) {
    return cudaMemcpyPeerAsync(to, to_device, from, from_device, size, 0);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
    stand_in_lock();
    int on_device = place(to, size) == 1;
    stand_in_unlock();
    if (size && !on_device) return cudaErrorInvalidValue;
    return size ? submit(stream, FILLS, fill, (Move){to, NULL, size, value}) : cudaSuccess;
}

cudaError_t cudaMemset(void *to, int value, size_t size) { return cudaMemsetAsync(to, value, size, 0); }
