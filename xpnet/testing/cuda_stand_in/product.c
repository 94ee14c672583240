// See product.h. float16 is multiplied and added in float32, as cuBLAS does with CUBLAS_COMPUTE_32F.
#include "product.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "stand_in.h"

size_t type_size(enum type type) { return type == FLOAT64 ? 8 : type == FLOAT32 ? 4 : 2; }

static inline double read_element(const void *data, enum type type, long at) {
    return type == FLOAT64 ? ((const double *)data)[at] : type == FLOAT32 ? ((const float *)data)[at] : ((const _Float16 *)data)[at];
}

static inline void write_element(void *data, enum type type, long at, double value) {
    if (type == FLOAT64) ((double *)data)[at] = value;
    else if (type == FLOAT32) ((float *)data)[at] = (float)value;
    else ((_Float16 *)data)[at] = (_Float16)(float)value;
}

static inline float round_to_tf32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7F800000) != 0x7F800000) bits = (bits + 0x1000) & ~0x1FFFu;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

#define REAL float
#define NAME(name) name##_float
#include "columns.h"
#undef REAL
#undef NAME
#define REAL double
#define NAME(name) name##_double
#include "columns.h"

static const void *find(const Matrix *stack, long g) {
    return stack->list ? stack->list[g] : (const char *)stack->data + g * stack->batch * type_size(stack->type);
}

static void run(void *data) {
    Product *p = data;
    int is_double = p->c.type == FLOAT64;
    enum type scale = is_double ? FLOAT64 : FLOAT32;
    double alpha = p->alpha_at ? read_element(p->alpha_at, scale, 0) : p->alpha;
    double beta = p->beta_at ? read_element(p->beta_at, scale, 0) : p->beta;
    for (long g = 0; g < p->count; ++g) {
        Product one = *p;
        one.a.data = find(&p->a, g), one.b.data = find(&p->b, g), one.c.data = find(&p->c, g);
        if (is_double) multiply_double(&one, alpha, beta);
        else multiply_float(&one, (float)alpha, (float)beta);
    }
}

static int reachable(const Product *p, const Matrix *x, long rows, long columns) {
    if (!rows || !columns) return 1;
    if (x->list) return !stand_in_check_access(x->list, p->count * sizeof *x->list, 1);
    long down = x->transposed ? columns : rows, right = x->transposed ? rows : columns;
    size_t elements = (p->count - 1) * x->batch + (right - 1) * x->stride + down;
    return !stand_in_check_access(x->data, elements * type_size(x->type), 1);
}

enum status product_submit(void *stream, const Product *p) {
    if (!p->m || !p->n || !p->count) return SUCCESS;
    int reaches = reachable(p, &p->a, p->m, p->k) && reachable(p, &p->b, p->k, p->n) && reachable(p, &p->c, p->m, p->n);
    const void *vector = p->bias ? p->bias : p->sums;
    if (vector) reaches &= !stand_in_check_access(vector, p->m * type_size(p->c.type), 1);
    if (p->sums_of_b) reaches &= !stand_in_check_access(p->sums_of_b, p->n * type_size(p->c.type), 1);
    if (!reaches) return EXECUTION_FAILED;
    return stand_in_submit(stream, PRODUCTS, run, memcpy(malloc(sizeof *p), p, sizeof *p)) ? EXECUTION_FAILED : SUCCESS;
}
