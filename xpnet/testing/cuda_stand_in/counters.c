// What has been done since the start of the process, for tests that count work.
#include <pthread.h>
#include "stand_in.h"

static long counts[COUNTERS];
static const char *const names[COUNTERS] = {
    "allocations", "kernels", "products", "fills", "copies_to_device", "copies_to_host", "copies_on_device",
    "synchronizations", "graph_launches", "graph_nodes",
};

static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

void stand_in_lock(void) { pthread_mutex_lock(&mutex); }
void stand_in_unlock(void) { pthread_mutex_unlock(&mutex); }
void stand_in_count(enum counter kind, long times) { __atomic_add_fetch(&counts[kind], times, __ATOMIC_RELAXED); }

int stand_in_counter(int index, const char **name, long *count) {
    if (index < 0 || index >= COUNTERS) return 0;
    *name = names[index];
    *count = __atomic_load_n(&counts[index], __ATOMIC_RELAXED);
    return 1;
}
