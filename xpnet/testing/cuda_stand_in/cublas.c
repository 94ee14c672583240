// cuBLAS: products of real matrices and vectors, as CuPy calls them. The builder adds a refusal for every other function.
#include <stdlib.h>
#include "product.h"
#include "stand_in.h"

enum { COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_64F = 70, COMPUTE_64F_PEDANTIC = 71, COMPUTE_32F_FAST_TF32 = 77 };
enum { TF32_MATH = 3 };  // cublasMath_t

typedef struct { void *stream; int pointers_on_device, math_mode; } Handle;

int cublasCreate_v2(Handle **handle) {
    if (!stand_in_device_count()) return NOT_INITIALIZED;
    *handle = calloc(1, sizeof **handle);
    return SUCCESS;
}
int cublasDestroy_v2(Handle *handle) { return free(handle), SUCCESS; }
int cublasGetVersion_v2(Handle *handle, int *version) { return *version = 130000, SUCCESS; }
int cublasSetStream_v2(Handle *handle, void *stream) { return handle->stream = stream, SUCCESS; }
int cublasGetStream_v2(Handle *handle, void **stream) { return *stream = handle->stream, SUCCESS; }
int cublasSetPointerMode_v2(Handle *handle, int mode) { return handle->pointers_on_device = mode, SUCCESS; }
int cublasGetPointerMode_v2(Handle *handle, int *mode) { return *mode = handle->pointers_on_device, SUCCESS; }
int cublasSetMathMode(Handle *handle, int mode) { return handle->math_mode = mode, SUCCESS; }
int cublasGetMathMode(Handle *handle, int *mode) { return *mode = handle->math_mode, SUCCESS; }

static int is_real(int type) { return type == FLOAT16 || type == FLOAT32 || type == FLOAT64; }

static int fits(const Matrix *x, long rows, long columns) {
    return x->stride >= (x->transposed ? columns : rows) && x->stride > 0;
}

// The types of the product's matrices agree, and its strides fit: do it.
static int submit(Handle *handle, Product p, const void *alpha, const void *beta) {
    if (!handle) return NOT_INITIALIZED;
    if (p.m < 0 || p.n < 0 || p.k < 0 || p.count < 0 || p.a.transposed > 2 || p.b.transposed > 2) return INVALID_VALUE;
    if (p.m && p.n && p.k && (!fits(&p.a, p.m, p.k) || !fits(&p.b, p.k, p.n) || !fits(&p.c, p.m, p.n))) return INVALID_VALUE;
    if (!is_real(p.a.type) || !is_real(p.c.type) || p.a.type != p.b.type) return NOT_SUPPORTED;
    if ((p.a.type == FLOAT64) != (p.c.type == FLOAT64)) return NOT_SUPPORTED;
    p.a.transposed = p.a.transposed != 0, p.b.transposed = p.b.transposed != 0;  // of real numbers, 2 is as 1
    int is_double = p.c.type == FLOAT64;
    if (handle->pointers_on_device) p.alpha_at = alpha, p.beta_at = beta;
    else {
        p.alpha = is_double ? *(const double *)alpha : *(const float *)alpha;
        p.beta = is_double ? *(const double *)beta : *(const float *)beta;
    }
    p.tf32 |= handle->math_mode == TF32_MATH && p.a.type == FLOAT32;
    return product_submit(handle->stream, &p);
}

int cublasGemmStridedBatchedEx(Handle *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int type_a,
                               int lda, long long batch_a, const void *b, int type_b, int ldb, long long batch_b,
                               const void *beta, void *c, int type_c, int ldc, long long batch_c, int count, int compute,
                               int algorithm) {
    int is_double = compute == COMPUTE_64F || compute == COMPUTE_64F_PEDANTIC;
    int is_single = compute == COMPUTE_32F || compute == COMPUTE_32F_PEDANTIC || compute == COMPUTE_32F_FAST_TF32;
    if ((!is_double && !is_single) || is_double != (type_c == FLOAT64)) return NOT_SUPPORTED;
    Product product = {
        .m = m, .n = n, .k = k, .count = count,
        .a = {a, type_a, lda, ta, batch_a}, .b = {b, type_b, ldb, tb, batch_b}, .c = {c, type_c, ldc, 0, batch_c},
        .tf32 = compute == COMPUTE_32F_FAST_TF32 && type_a == FLOAT32,
    };
    return submit(handle, product, alpha, beta);
}

int cublasGemmEx(Handle *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int type_a, int lda,
                 const void *b, int type_b, int ldb, const void *beta, void *c, int type_c, int ldc, int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, type_a, lda, 0, b, type_b, ldb, 0, beta, c, type_c,
                                      ldc, 0, 1, compute, algorithm);
}

int cublasSgemmEx(Handle *handle, int ta, int tb, int m, int n, int k, const float *alpha, const void *a, int type_a, int lda,
                  const void *b, int type_b, int ldb, const float *beta, void *c, int type_c, int ldc) {
    return cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, type_a, lda, b, type_b, ldb, beta, c, type_c, ldc, COMPUTE_32F, 0);
}

int cublasSgemm_v2(Handle *handle, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda,
                   const float *b, int ldb, const float *beta, float *c, int ldc) {
    return cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, FLOAT32, lda, b, FLOAT32, ldb, beta, c, FLOAT32, ldc, COMPUTE_32F, 0);
}

int cublasDgemm_v2(Handle *handle, int ta, int tb, int m, int n, int k, const double *alpha, const double *a, int lda,
                   const double *b, int ldb, const double *beta, double *c, int ldc) {
    return cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, FLOAT64, lda, b, FLOAT64, ldb, beta, c, FLOAT64, ldc, COMPUTE_64F, 0);
}

// The matrices of a stack begin where lists on the device say.
static int gemm_batched(Handle *handle, enum type type, int ta, int tb, int m, int n, int k, const void *alpha,
                        const void *const *a, int lda, const void *const *b, int ldb, const void *beta, void *const *c, int ldc,
                        int count) {
    Product product = {
        .m = m, .n = n, .k = k, .count = count,
        .a = {NULL, type, lda, ta, 0, a}, .b = {NULL, type, ldb, tb, 0, b}, .c = {NULL, type, ldc, 0, 0, (const void *const *)c},
    };
    return submit(handle, product, alpha, beta);
}

int cublasSgemmBatched(Handle *handle, int ta, int tb, int m, int n, int k, const float *alpha, const void *const *a, int lda,
                       const void *const *b, int ldb, const float *beta, void *const *c, int ldc, int count) {
    return gemm_batched(handle, FLOAT32, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, count);
}

int cublasDgemmBatched(Handle *handle, int ta, int tb, int m, int n, int k, const double *alpha, const void *const *a, int lda,
                       const void *const *b, int ldb, const double *beta, void *const *c, int ldc, int count) {
    return gemm_batched(handle, FLOAT64, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, count);
}

// A vector with steps is a matrix of one row, so y' = x' op(A)'.
static int gemv(Handle *handle, enum type type, int transposed, int m, int n, const void *alpha, const void *a, int lda,
                const void *x, int step_x, const void *beta, void *y, int step_y) {
    if (step_x < 1 || step_y < 1) return NOT_SUPPORTED;
    Product product = {
        .m = 1, .n = transposed ? n : m, .k = transposed ? m : n, .count = 1,
        .a = {x, type, step_x, 0, 0}, .b = {a, type, lda, !transposed, 0}, .c = {y, type, step_y, 0, 0},
    };
    return submit(handle, product, alpha, beta);
}

int cublasSgemv_v2(Handle *handle, int transposed, int m, int n, const float *alpha, const float *a, int lda, const float *x,
                   int step_x, const float *beta, float *y, int step_y) {
    return gemv(handle, FLOAT32, transposed, m, n, alpha, a, lda, x, step_x, beta, y, step_y);
}

int cublasDgemv_v2(Handle *handle, int transposed, int m, int n, const double *alpha, const double *a, int lda, const double *x,
                   int step_x, const double *beta, double *y, int step_y) {
    return gemv(handle, FLOAT64, transposed, m, n, alpha, a, lda, x, step_x, beta, y, step_y);
}
