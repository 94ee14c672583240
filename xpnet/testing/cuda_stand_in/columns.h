// One product in the arithmetic of REAL, which product.c includes for float and for double.

static void NAME(pack)(const Product *p, const Matrix *x, long rows, long columns, REAL *to) {
    for (long j = 0; j < columns; ++j)
        for (long i = 0; i < rows; ++i) {
            long at = x->transposed ? i * x->stride + j : j * x->stride + i;
            REAL value = (REAL)read_element(x->data, x->type, at);
            to[j * rows + i] = p->tf32 ? (REAL)round_to_tf32((float)value) : value;
        }
}

static void NAME(multiply)(const Product *p, REAL alpha, REAL beta) {
    long m = p->m, n = p->n, k = p->k, width;
    REAL *a = malloc((m * k + 1) * sizeof *a), *b = malloc((k * n + 1) * sizeof *b), *sum = malloc((4 * m + 1) * sizeof *sum);
    NAME(pack)(p, &p->a, m, k, a);
    NAME(pack)(p, &p->b, k, n, b);
    for (long j = 0; j < n; j += width) {
        width = n - j < 4 ? 1 : 4;
        memset(sum, 0, 4 * m * sizeof *sum);
        REAL *restrict s0 = sum, *restrict s1 = sum + m, *restrict s2 = sum + 2 * m, *restrict s3 = sum + 3 * m;
        for (long q = 0; q < k; ++q) {
            const REAL *restrict column = a + q * m, *row = b + j * k + q;
            if (width == 1) {
                for (long i = 0; i < m; ++i) s0[i] += column[i] * row[0];
                continue;
            }
            REAL b0 = row[0], b1 = row[k], b2 = row[2 * k], b3 = row[3 * k];
            for (long i = 0; i < m; ++i) {
                REAL x = column[i];
                s0[i] += x * b0, s1[i] += x * b1, s2[i] += x * b2, s3[i] += x * b3;
            }
        }
        for (long w = 0; w < width; ++w)
            for (long i = 0; i < m; ++i) {
                long at = (j + w) * p->c.stride + i;
                REAL value = alpha * sum[w * m + i];
                if (beta != 0) value += beta * (REAL)read_element(p->c.data, p->c.type, at);
                if (p->bias) value += (REAL)read_element(p->bias, p->c.type, i);
                write_element((void *)p->c.data, p->c.type, at, value);
            }
    }
    if (p->sums)
        for (long i = 0; i < m; ++i) {
            REAL total = 0;
            for (long q = 0; q < k; ++q) total += a[q * m + i];
            write_element(p->sums, p->c.type, i, total);
        }
    if (p->sums_of_b)
        for (long j = 0; j < n; ++j) {
            REAL total = 0;
            for (long q = 0; q < k; ++q) total += b[j * k + q];
            write_element(p->sums_of_b, p->c.type, j, total);
        }
    free(a), free(b), free(sum);
}
