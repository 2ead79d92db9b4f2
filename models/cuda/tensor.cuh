// Tensor cores: products of bf16 matrices, summed in f32 registers.
//
// c[16][8] += a[16][16] b[16][8]. Lane 4 g + t of a warp holds, as pairs of adjacent elements,
//   a: rows g and g + 8 of columns 2t.., then of columns 2t + 8..
//   b: rows 2t.. and 2t + 8.. of column g (so pairs run down a column)
//   c: columns 2t, 2t + 1 of rows g and g + 8
// A result is so laid out as a left operand is, two of eight columns being one of sixteen.
#pragma once
#include "number.cuh"

#ifndef LOEV_MIRROR
DEVICE void tensor_product(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8 x 8 from shared memory; lane 8 m + i says where row i of matrix m begins.
DEVICE void tensor_load(unsigned (&r)[4], const void* row) {
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
DEVICE void tensor_load_turned(unsigned (&r)[4], const void* row) {
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
#endif

// Right operands from a matrix in shared memory, rows `stride` apart: of its rows r..r+16 as columns and its columns
// c..c+16 as rows. The first two are those of the first eight columns.
DEVICE void right_across(unsigned (&b)[4], const bf16* matrix, int stride, int r, int c) {
    int lane = threadIdx.x % 32, part = lane / 8;
    tensor_load(b, matrix + (r + part / 2 * 8 + lane % 8) * stride + c + part % 2 * 8);
}

// The same where rows of the matrix are rows of the operand.
DEVICE void right_down(unsigned (&b)[4], const bf16* matrix, int stride, int r, int c) {
    int lane = threadIdx.x % 32, part = lane / 8;
    tensor_load_turned(b, matrix + (r + part % 2 * 8 + lane % 8) * stride + c + part / 2 * 8);
}

// Two results of eight columns as one left operand.
DEVICE void as_left(unsigned (&a)[4], const float (&low)[4], const float (&high)[4]) {
    a[0] = pack(low[0], low[1]), a[1] = pack(low[2], low[3]);
    a[2] = pack(high[0], high[1]), a[3] = pack(high[2], high[3]);
}
