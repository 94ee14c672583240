// Streams, events and graphs of the CUDA runtime. All work is done when it is submitted, which is one of the orders that
// streams allow; a stream that captures records it instead.
#include <cuda_runtime.h>
#include <stdlib.h>
#include <pthread.h>
#include <time.h>
#include "stand_in.h"

typedef struct Node { void (*work)(void *); void *data; struct Node *next; } Node;
typedef struct { Node *first, *last; long nodes; int references; } Graph;

// A capture, which other streams may join by events. It owns the graph until it ends.
typedef struct { Graph *graph; struct Stream *origin; enum cudaStreamCaptureMode mode; pthread_t thread; int broken; } Capture;
typedef struct Stream { int device; unsigned flags; int priority; Capture *capture; int forked; struct Stream *next; } Stream;
typedef struct { int recorded; struct timespec at; Capture *capture; struct Stream *stream; int timing; } Event;

static Stream *streams;

static Stream *find(void *handle) {  // NULL for the default streams and for what is no stream
    Stream *stream = streams;
    while (stream && stream != handle) stream = stream->next;
    return stream;
}

static int is_default(void *handle) { return (size_t)handle <= 2; }

int stand_in_captures(void *handle) {
    Stream *stream = find(handle);
    return stream && stream->capture;
}

// The legacy default stream waits for all streams but those that are non-blocking.
static int implicit(void *handle) {
    if (!is_default(handle) || handle == cudaStreamPerThread) return 0;
    for (Stream *stream = streams; stream; stream = stream->next)
        if (stream->capture && !(stream->flags & cudaStreamNonBlocking)) {
            stream->capture->broken = 1;
            return 1;
        }
    return 0;
}

int stand_in_forbidden(void) {
    int found = 0;
    stand_in_lock();
    for (Stream *stream = streams; stream; stream = stream->next) {
        Capture *capture = stream->capture;
        if (!capture || capture->mode == cudaStreamCaptureModeRelaxed) continue;
        if (capture->mode == cudaStreamCaptureModeGlobal || pthread_equal(capture->thread, pthread_self()))
            found = capture->broken = 1;
    }
    stand_in_unlock();
    return found ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

static void append(Graph *graph, void (*work)(void *), void *data) {
    Node *node = malloc(sizeof *node);
    *node = (Node){work, data, NULL};
    if (graph->last) graph->last->next = node;
    else graph->first = node;
    graph->last = node;
    ++graph->nodes;
    stand_in_count(GRAPH_NODES, 1);
}

int stand_in_submit(void *handle, enum counter kind, void (*work)(void *), void *data) {
    stand_in_lock();
    Stream *stream = find(handle);
    int error = cudaSuccess;
    if (!stream && !is_default(handle)) error = cudaErrorInvalidResourceHandle;
    else if (stream && stream->device != stand_in_device() && kind == KERNELS) error = cudaErrorInvalidResourceHandle;
    else if (implicit(handle)) error = cudaErrorStreamCaptureImplicit;
    else if (stream && stream->capture && stream->capture->broken) error = cudaErrorStreamCaptureInvalidated;
    if (!error && stream && stream->capture) append(stream->capture->graph, work, data);
    else {
        if (!error) {
            stand_in_count(kind, 1);
            work(data);
        }
        free(data);
    }
    stand_in_unlock();
    return error;
}

int stand_in_synchronize(int device) {
    int error = cudaSuccess;
    stand_in_lock();
    for (Stream *stream = streams; stream; stream = stream->next)
        if (stream->capture && stream->device == device) {
            stream->capture->broken = 1;
            error = cudaErrorStreamCaptureUnsupported;
        }
    stand_in_unlock();
    stand_in_count(SYNCHRONIZATIONS, 1);
    return error;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *handle, unsigned flags, int priority) {
    Stream *stream = calloc(1, sizeof *stream);
    *stream = (Stream){.device = stand_in_device(), .flags = flags, .priority = priority};
    stand_in_lock();
    stream->next = streams;
    streams = stream;
    stand_in_unlock();
    *handle = (cudaStream_t)stream;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned flags) {
    return cudaStreamCreateWithPriority(handle, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *handle) { return cudaStreamCreateWithPriority(handle, 0, 0); }

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned *flags) {
    Stream *stream = find(handle);
    *flags = stream ? stream->flags : 0;
    return stream || is_default(handle) ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority) {
    Stream *stream = find(handle);
    *priority = stream ? stream->priority : 0;
    return stream || is_default(handle) ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

static void release(Graph *graph) {
    if (--graph->references) return;
    for (Node *node = graph->first, *next; node; node = next) {
        next = node->next;
        free(node->data);
        free(node);
    }
    free(graph);
}

// End a capture on every stream that takes part; return whether a forked stream has not been joined.
static int leave(Capture *capture) {
    int unjoined = 0;
    for (Stream *stream = streams; stream; stream = stream->next) {
        if (stream->capture != capture) continue;
        unjoined |= stream->forked;
        stream->capture = NULL;
        stream->forked = 0;
    }
    return unjoined;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    stand_in_lock();
    Stream *stream = find(handle);
    if (stream && stream->capture) {
        Capture *capture = stream->capture;
        capture->broken = 1;
        if (capture->origin == stream) {  // nobody can end it any more; events may still point to it
            leave(capture);
            release(capture->graph);
            capture->graph = NULL;
        }
    }
    if (stream) {
        Stream **at = &streams;
        while (*at != stream) at = &(*at)->next;
        *at = stream->next;
        free(stream);
    }
    stand_in_unlock();
    return stream ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

static cudaError_t wait_for(cudaStream_t handle) {
    stand_in_lock();
    Stream *stream = find(handle);
    cudaError_t error = cudaSuccess;
    if (!stream && !is_default(handle)) error = cudaErrorInvalidResourceHandle;
    else if (implicit(handle)) error = cudaErrorStreamCaptureImplicit;
    else if (stream && stream->capture) {
        stream->capture->broken = 1;
        error = cudaErrorStreamCaptureUnsupported;
    }
    stand_in_unlock();
    return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    stand_in_count(SYNCHRONIZATIONS, 1);
    return wait_for(handle);
}

cudaError_t cudaStreamQuery(cudaStream_t handle) { return wait_for(handle); }

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode) {
    stand_in_lock();
    Stream *stream = find(handle);
    cudaError_t error = !stream ? is_default(handle) ? cudaErrorStreamCaptureUnsupported : cudaErrorInvalidResourceHandle
                        : stream->capture ? cudaErrorInvalidValue : cudaSuccess;
    if (!error) {
        Graph *graph = calloc(1, sizeof *graph);
        graph->references = 1;
        stream->capture = malloc(sizeof *stream->capture);  // never freed: events may point to it, and it is small
        *stream->capture = (Capture){graph, stream, mode, pthread_self(), 0};
    }
    stand_in_unlock();
    return error;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *result) {
    *result = NULL;
    stand_in_lock();
    Stream *stream = find(handle);
    Capture *capture = stream ? stream->capture : NULL;
    cudaError_t error = cudaSuccess;
    if (!capture) error = cudaErrorInvalidValue;
    else if (capture->origin != stream) {
        capture->broken = 1;
        error = cudaErrorStreamCaptureUnmatched;
    } else {
        int unjoined = leave(capture);
        error = capture->broken ? cudaErrorStreamCaptureInvalidated : unjoined ? cudaErrorStreamCaptureUnjoined : cudaSuccess;
        if (error) release(capture->graph);
        else *result = (cudaGraph_t)capture->graph;
        capture->graph = NULL;
    }
    stand_in_unlock();
    return error;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *status) {
    stand_in_lock();
    Stream *stream = find(handle);
    Capture *capture = stream ? stream->capture : NULL;
    *status = !capture ? cudaStreamCaptureStatusNone
              : capture->broken ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
    cudaError_t error = implicit(handle) ? cudaErrorStreamCaptureImplicit : cudaSuccess;
    stand_in_unlock();
    return error;
}

int cuGraphGetNodes(void *handle, void **nodes, size_t *count) {  // their number alone
    if (nodes) return cudaErrorNotSupported;
    *count = (size_t)((Graph *)handle)->nodes;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *instance, cudaGraph_t handle, unsigned long long flags) {
    stand_in_lock();
    ++((Graph *)handle)->references;
    stand_in_unlock();
    *instance = (cudaGraphExec_t)handle;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t instance, cudaStream_t handle) {
    cudaError_t error = cudaSuccess;
    stand_in_lock();
    if (!find(handle) && !is_default(handle)) error = cudaErrorInvalidResourceHandle;
    else if (stand_in_captures(handle)) error = cudaErrorNotSupported;  // a graph inside a graph
    else if (implicit(handle)) error = cudaErrorStreamCaptureImplicit;
    if (!error) {
        stand_in_count(GRAPH_LAUNCHES, 1);
        for (Node *node = ((Graph *)instance)->first; node; node = node->next) node->work(node->data);
    }
    stand_in_unlock();
    return error;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t instance, cudaStream_t handle) {
    return find(handle) || is_default(handle) ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
    stand_in_lock();
    release((Graph *)handle);
    stand_in_unlock();
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t instance) { return cudaGraphDestroy((cudaGraph_t)instance); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned flags) {
    Event *event = calloc(1, sizeof *event);
    event->timing = !(flags & cudaEventDisableTiming);
    *handle = (cudaEvent_t)event;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *handle) { return cudaEventCreateWithFlags(handle, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
    free(handle);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t on) {
    Event *event = (Event *)handle;
    stand_in_lock();
    Stream *stream = find(on);
    cudaError_t error = !stream && !is_default(on) ? cudaErrorInvalidResourceHandle
                        : implicit(on) ? cudaErrorStreamCaptureImplicit : cudaSuccess;
    if (!error) {
        event->capture = stream ? stream->capture : NULL;
        event->stream = stream;
        event->recorded = 1;
        clock_gettime(CLOCK_MONOTONIC, &event->at);
    }
    stand_in_unlock();
    return error;
}

// What an event in a capture starts: the waiting stream takes part, or a forked stream is joined.
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t awaited, unsigned flags) {
    Event *event = (Event *)awaited;
    stand_in_lock();
    Stream *stream = find(handle), *other = find(event->stream);
    Capture *capture = event->capture && event->capture->graph ? event->capture : NULL;
    cudaError_t error = !stream && !is_default(handle) ? cudaErrorInvalidResourceHandle : cudaSuccess;
    if (!error && stream && stream->capture && stream->capture != capture)
        error = capture ? cudaErrorStreamCaptureMerge : event->recorded ? cudaErrorStreamCaptureIsolation : cudaSuccess;
    else if (!error && capture && !stream) error = cudaErrorStreamCaptureImplicit;
    else if (!error && capture) {
        if (!stream->capture) stream->forked = 1;
        stream->capture = capture;
        if (other && other != stream && other->capture == capture) other->forked = 0;
    }
    if (error && stream && stream->capture) stream->capture->broken = 1;
    stand_in_unlock();
    return error;
}

static cudaError_t finished(cudaEvent_t handle) {
    Event *event = (Event *)handle;
    if (!event->capture) return cudaSuccess;
    event->capture->broken = 1;
    return cudaErrorCapturedEvent;
}

cudaError_t cudaEventQuery(cudaEvent_t handle) { return finished(handle); }

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
    stand_in_count(SYNCHRONIZATIONS, 1);
    return finished(handle);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    Event *start = (Event *)from, *end = (Event *)to;
    if (start->capture || end->capture) return cudaErrorCapturedEvent;
    if (!start->recorded || !end->recorded || !start->timing || !end->timing) return cudaErrorInvalidResourceHandle;
    *milliseconds = (end->at.tv_sec - start->at.tv_sec) * 1e3f + (end->at.tv_nsec - start->at.tv_nsec) * 1e-6f;
    return cudaSuccess;
}
