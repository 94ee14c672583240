// Matrix products on the host, for cublaslt.c and cublas.c: C = alpha op(A) op(B) + beta C, all column by column.
#pragma once
#include <stddef.h>

enum type { FLOAT32 = 0, FLOAT64 = 1, FLOAT16 = 2 };  // cudaDataType
enum status {                                         // cublasStatus_t
    SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, INTERNAL_ERROR = 14, NOT_SUPPORTED = 15
};

typedef struct {
    const void *data;
    enum type type;
    long stride;     // elements from one column to the next
    int transposed;
    long batch;      // elements from one matrix of a stack to the next
    const void *const *list;  // on the device: where each matrix of a stack begins, instead of `data`; or NULL
} Matrix;

typedef struct {
    long m, n, k, count;  // C is (m, n), `count` times
    Matrix a, b, c;
    double alpha, beta;
    const void *alpha_at, *beta_at;  // scalars on the device, read when the product is done; or NULL
    const void *bias;                // (m,), added to each column of C; or NULL
    void *sums;                      // (m,), set to the sums of the rows of op(A); or NULL
    void *sums_of_b;                 // (n,), set to the sums of the columns of op(B); or NULL
    int tf32;                        // whether the inputs are rounded to TF32's 10 bits
} Product;

// Check the operands' memory; compute now, or record if the stream captures. Returns a status.
enum status product_submit(void *stream, const Product *product);
size_t type_size(enum type type);
