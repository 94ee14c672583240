// cublasLt: descriptors, layouts, preferences, one algorithm, and products. Refuses what the real library refuses, and
// what is not here: other epilogues than BIAS, BGRADA and BGRADB, other types than float16, float32 and float64, row-major order.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "product.h"
#include "stand_in.h"

enum { COMPUTE_32F = 68, COMPUTE_64F = 70, COMPUTE_32F_FAST_TF32 = 77 };  // cublasComputeType_t
enum { EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4, EPILOGUE_BGRADA = 256, EPILOGUE_BGRADB = 512 };  // cublasLtEpilogue_t

typedef struct { int device; } Handle;
typedef struct { int32_t compute, scale, pointer_mode, transpose_a, transpose_b; uint32_t epilogue; void *vector; } Desc;
typedef struct { int32_t type, order; uint64_t rows, columns; int64_t stride; int32_t count; int64_t batch; } Layout;
typedef struct { uint32_t search; uint64_t workspace; uint32_t reductions, alignments[4]; float waves; } Preference;
typedef struct { uint64_t chosen_for; uint32_t alignments[4]; uint64_t unused[5]; } Algorithm;
typedef struct { Algorithm algorithm; size_t workspace; int status; float waves; int reserved[4]; } Result;

typedef struct { int attribute; size_t offset, size; } Field;
#define END {-1, 0, 0}
#define SIZED(number, type, member) {number, offsetof(type, member), sizeof(((type *)0)->member)}

static const Field desc_fields[] = {
    SIZED(0, Desc, compute), SIZED(1, Desc, scale), SIZED(2, Desc, pointer_mode), SIZED(3, Desc, transpose_a),
    SIZED(4, Desc, transpose_b), SIZED(7, Desc, epilogue), SIZED(8, Desc, vector), END,
};
static const Field layout_fields[] = {
    SIZED(0, Layout, type), SIZED(1, Layout, order), SIZED(2, Layout, rows), SIZED(3, Layout, columns),
    SIZED(4, Layout, stride), SIZED(5, Layout, count), SIZED(6, Layout, batch), END,
};
static const Field preference_fields[] = {
    SIZED(0, Preference, search), SIZED(1, Preference, workspace), SIZED(3, Preference, reductions),
    SIZED(5, Preference, alignments[0]), SIZED(6, Preference, alignments[1]), SIZED(7, Preference, alignments[2]),
    SIZED(8, Preference, alignments[3]), SIZED(9, Preference, waves), END,
};

static const Field *field(const Field *fields, int attribute) {
    while (fields->attribute >= 0 && fields->attribute != attribute) ++fields;
    return fields->attribute < 0 ? NULL : fields;
}

static int set(void *what, const Field *fields, int attribute, const void *value, size_t size) {
    const Field *found = field(fields, attribute);
    if (!what || !value || !found || found->size != size) return INVALID_VALUE;
    memcpy((char *)what + found->offset, value, size);
    return SUCCESS;
}

static int get(void *what, const Field *fields, int attribute, void *value, size_t size, size_t *written) {
    const Field *found = field(fields, attribute);
    if (!what || !found || (size && size < found->size)) return INVALID_VALUE;
    if (written) *written = found->size;
    if (size) memcpy(value, (char *)what + found->offset, found->size);
    return SUCCESS;
}

static int create(void **made, const void *initial, size_t size) {
    if (!made) return INVALID_VALUE;
    *made = memcpy(malloc(size), initial, size);
    return SUCCESS;
}

static int destroy(void *what) {
    free(what);
    return SUCCESS;
}

size_t cublasLtGetVersion(void) { return 130000; }

int cublasLtCreate(void **handle) {
    Handle made = {stand_in_device()};
    return stand_in_device_count() ? create(handle, &made, sizeof made) : NOT_INITIALIZED;
}

int cublasLtMatmulDescCreate(void **desc, int compute, int scale) {
    Desc made = {.compute = compute, .scale = scale, .epilogue = EPILOGUE_DEFAULT};
    return create(desc, &made, sizeof made);
}

int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    Layout made = {.type = type, .rows = rows, .columns = columns, .stride = stride, .count = 1};
    return create(layout, &made, sizeof made);
}

int cublasLtMatmulPreferenceCreate(void **preference) {
    Preference made = {.reductions = ~0u, .alignments = {256, 256, 256, 256}};
    return create(preference, &made, sizeof made);
}

int cublasLtDestroy(void *handle) { return destroy(handle); }
int cublasLtMatmulDescDestroy(void *desc) { return destroy(desc); }
int cublasLtMatrixLayoutDestroy(void *layout) { return destroy(layout); }
int cublasLtMatmulPreferenceDestroy(void *preference) { return destroy(preference); }

int cublasLtMatmulDescSetAttribute(void *desc, int attribute, const void *value, size_t size) {
    return set(desc, desc_fields, attribute, value, size);
}
int cublasLtMatrixLayoutSetAttribute(void *layout, int attribute, const void *value, size_t size) {
    return set(layout, layout_fields, attribute, value, size);
}
int cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *value, size_t size) {
    return set(preference, preference_fields, attribute, value, size);
}
int cublasLtMatmulDescGetAttribute(void *desc, int attribute, void *value, size_t size, size_t *written) {
    return get(desc, desc_fields, attribute, value, size, written);
}
int cublasLtMatrixLayoutGetAttribute(void *layout, int attribute, void *value, size_t size, size_t *written) {
    return get(layout, layout_fields, attribute, value, size, written);
}

static int is_valid(const Layout *x) {
    return x && x->order == 0 && x->rows && x->columns && x->count > 0 && x->stride >= (int64_t)x->rows;
}

// SUCCESS if the four layouts are of one product, in types and with an epilogue that there are.
static int check(const Desc *d, const Layout *a, const Layout *b, const Layout *c, const Layout *out) {
    if (!d || !is_valid(a) || !is_valid(b) || !is_valid(c) || !is_valid(out) || memcmp(c, out, sizeof *c)) return INVALID_VALUE;
    uint64_t m = d->transpose_a ? a->columns : a->rows, k = d->transpose_a ? a->rows : a->columns;
    uint64_t n = d->transpose_b ? b->rows : b->columns, inner = d->transpose_b ? b->columns : b->rows;
    if (k != inner || out->rows != m || out->columns != n) return INVALID_VALUE;
    if (a->count != out->count || b->count != out->count || (out->count > 1 && !out->batch)) return INVALID_VALUE;
    if (d->transpose_a > 1 || d->transpose_b > 1 || d->pointer_mode > 1) return NOT_SUPPORTED;
    if (a->type != b->type || a->type != out->type) return NOT_SUPPORTED;
    int is_double = d->compute == COMPUTE_64F && d->scale == FLOAT64 && a->type == FLOAT64;
    int is_single = d->compute == COMPUTE_32F && d->scale == FLOAT32 && (a->type == FLOAT32 || a->type == FLOAT16);
    int is_tf32 = d->compute == COMPUTE_32F_FAST_TF32 && d->scale == FLOAT32 && a->type == FLOAT32;
    if (!is_double && !is_single && !is_tf32) return NOT_SUPPORTED;
    if (d->epilogue == EPILOGUE_DEFAULT) return SUCCESS;
    uint32_t epilogue = d->epilogue;
    if (epilogue != EPILOGUE_BIAS && epilogue != EPILOGUE_BGRADA && epilogue != EPILOGUE_BGRADB) return NOT_SUPPORTED;
    return is_double || out->count > 1 ? NOT_SUPPORTED : SUCCESS;
}

// A number for a product's description, but not for its pointers. Never 0.
static uint64_t identify(const Desc *d, const Layout *a, const Layout *b, const Layout *out) {
    uint64_t hash = 1469598103934665603u;
    uint64_t words[] = {d->compute, d->scale, d->transpose_a, d->transpose_b, d->epilogue};
    for (size_t i = 0; i < sizeof words / sizeof *words; ++i) hash = (hash ^ words[i]) * 1099511628211u;
    const Layout *layouts[] = {a, b, out};
    for (int i = 0; i < 3; ++i) {
        const Layout *x = layouts[i];
        uint64_t sizes[] = {x->type, x->rows, x->columns, x->stride, x->count, x->batch};
        for (int j = 0; j < 6; ++j) hash = (hash ^ sizes[j]) * 1099511628211u;
    }
    return hash | 1;
}

int cublasLtMatmulAlgoGetHeuristic(Handle *handle, Desc *desc, Layout *a, Layout *b, Layout *c, Layout *out,
                                   Preference *preference, int asked, Result *results, int *found) {
    if (!handle || !preference || asked < 1 || !results || !found) return INVALID_VALUE;
    *found = 0;
    int status = check(desc, a, b, c, out);
    if (status) return status;
    for (int i = 0; i < 4; ++i) {
        uint32_t alignment = preference->alignments[i];
        if (!alignment || alignment & (alignment - 1)) return INVALID_VALUE;
        if (alignment < type_size(out->type)) return NOT_SUPPORTED;
    }
    memset(results, 0, sizeof *results);
    results->algorithm.chosen_for = identify(desc, a, b, out);
    memcpy(results->algorithm.alignments, preference->alignments, sizeof preference->alignments);
    results->waves = 1;
    *found = 1;
    return SUCCESS;
}

static int is_aligned(const void *pointer, uint32_t alignment) { return (uintptr_t)pointer % alignment == 0; }

static Matrix matrix(const void *data, const Layout *x, int transposed) {
    return (Matrix){data, x->type, x->stride, transposed, x->batch};
}

int cublasLtMatmul(Handle *handle, Desc *desc, const void *alpha, const void *a, Layout *of_a, const void *b, Layout *of_b,
                   const void *beta, const void *c, Layout *of_c, void *out, Layout *of_out, const Algorithm *algorithm,
                   void *workspace, size_t workspace_size, void *stream) {
    if (!handle || !alpha || !beta || !a || !b || !out) return INVALID_VALUE;
    int status = check(desc, of_a, of_b, of_c, of_out);
    if (status) return status;
    if (handle->device != stand_in_device() || (workspace_size && (!workspace || !is_aligned(workspace, 16)))) return INVALID_VALUE;
    if (c != out) return NOT_SUPPORTED;
    uint32_t natural = type_size(of_out->type);
    if (!is_aligned(a, natural) || !is_aligned(b, natural) || !is_aligned(out, natural)) return INVALID_VALUE;
    if (algorithm) {
        if (algorithm->chosen_for != identify(desc, of_a, of_b, of_out)) return INVALID_VALUE;
        const uint32_t *least = algorithm->alignments;
        if (!is_aligned(a, least[0]) || !is_aligned(b, least[1]) || !is_aligned(out, least[3])) return EXECUTION_FAILED;
    }
    Product product = {
        .m = of_out->rows, .n = of_out->columns, .k = desc->transpose_a ? of_a->rows : of_a->columns, .count = of_out->count,
        .a = matrix(a, of_a, desc->transpose_a), .b = matrix(b, of_b, desc->transpose_b), .c = matrix(out, of_out, 0),
        .tf32 = desc->compute == COMPUTE_32F_FAST_TF32,
    };
    if (desc->epilogue != EPILOGUE_DEFAULT && (!desc->vector || !is_aligned(desc->vector, natural))) return INVALID_VALUE;
    if (desc->epilogue == EPILOGUE_BIAS) product.bias = desc->vector;
    if (desc->epilogue == EPILOGUE_BGRADA) product.sums = desc->vector;
    if (desc->epilogue == EPILOGUE_BGRADB) product.sums_of_b = desc->vector;
    if (desc->pointer_mode) product.alpha_at = alpha, product.beta_at = beta;
    else {
        product.alpha = desc->scale == FLOAT64 ? *(const double *)alpha : *(const float *)alpha;
        product.beta = desc->scale == FLOAT64 ? *(const double *)beta : *(const float *)beta;
    }
    return product_submit(stream, &product);
}
