// The tensor cores' instructions for one warp, sm_80 and up: sum += a · b for 16 rows and 8 columns.
//
// A row of a and a column of b are 32 bytes: 32 int8, or 16 halves. With g = lane / 4 and t = lane % 4, a lane holds
//   a[0], a[1]: bytes 4 t … 4 t + 3 of rows g and g + 8;  a[2], a[3]: bytes 16 + 4 t … of the same rows
//   b[0], b[1]: bytes 4 t … and 16 + 4 t … of column g
//   sum[0], sum[1]: columns 2 t and 2 t + 1 of row g;  sum[2], sum[3]: the same of row g + 8

#pragma once

// int8; the sum wraps around, and never does where K · 2^14 < 2^31.
__device__ __forceinline__ void mma(int (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Halves, summed as floats.
__device__ __forceinline__ void mma(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
