// What the parts of the stand-in share: one lock, the submission of work to streams, the owners of memory, counters.
#pragma once
#include <stddef.h>

#define MAX_DEVICES 16

// The names of these counters, in this order, are in counters.c.
enum counter {
    ALLOCATIONS, KERNELS, PRODUCTS, FILLS, COPIES_TO_DEVICE, COPIES_TO_HOST, COPIES_ON_DEVICE, SYNCHRONIZATIONS,
    GRAPH_LAUNCHES, GRAPH_NODES, COUNTERS
};

// One thread at a time: kernels keep their indices and their shared memory in static variables. May be nested.
void stand_in_lock(void);
void stand_in_unlock(void);

// Do work(data) now, or record it if the stream captures. `data` is one block of malloc, freed after its last use.
// Returns a cudaError_t.
int stand_in_submit(void *stream, enum counter kind, void (*work)(void *), void *data);

// Check that the current device can read and write so many bytes; `known` if they have to be device memory at all.
// Returns a cudaError_t.
int stand_in_check_access(const void *pointer, size_t size, int known);

void stand_in_count(enum counter kind, long times);
int stand_in_device(void);         // this thread's device
int stand_in_device_count(void);
int stand_in_can_access(int from, int to);
int stand_in_captures(void *stream);
int stand_in_forbidden(void);      // an error if a capture forbids calls that are not of a stream, else 0
int stand_in_synchronize(int device);
