// Products of matrices where there is no cuBLAS: on the mirror, and to check cuBLAS against. One thread a value.
#include "number.cuh"

namespace product {

struct Product {
    const void* a;
    const void* b;
    void* out;
    int64_t a_row, a_column, b_row, b_column, out_row;  // strides
    int64_t a_batch, b_batch, out_batch;
    int64_t m, n, k, batch;
    int narrow, out_narrow;  // whether the operands, and the result, are bf16
};
DEVICE float value(const void* x, int64_t i, int narrow) {
    return narrow ? __bfloat162float(((const bf16*)x)[i]) : ((const float*)x)[i];
}
KERNEL(product, Product, p) {
    int64_t i = thread_index();
    if (i >= p.m * p.n * p.batch) return;
    int64_t batch = i / (p.m * p.n), row = i / p.n % p.m, column = i % p.n;
    int64_t a = batch * p.a_batch + row * p.a_row, b = batch * p.b_batch + column * p.b_column;
    float sum = 0.0f;
    for (int64_t k = 0; k < p.k; k++) sum += value(p.a, a + k * p.a_column, p.narrow) * value(p.b, b + k * p.b_row, p.narrow);
    int64_t at = batch * p.out_batch + row * p.out_row + column;
    if (p.out_narrow)
        ((bf16*)p.out)[at] = __float2bfloat16(sum);
    else
        ((float*)p.out)[at] = sum;
}

}
