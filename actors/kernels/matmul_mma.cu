// C = A · Bᵀ for int8 matrices with the tensor cores' mma.sync, for sm_80 and up.
//
// arch: sm_80 sm_90a
// registers: 128
// no-spill
//
// Shape: see matmul_tile.cuh; an element is a byte. It needs 61,440 bytes of dynamic shared memory.
// Exact: m16n8k32 adds products of int8 to an int32 without rounding or saturation; every partial sum is at most
// K · 2^14 < 2^31 for K ≤ 131,071.
// Cost: m n K / 4096 instructions of a warp; a step of 64 bytes of the inner dimension reads 16 KiB for 256 of them.

#include "matmul_tile.cuh"

extern "C" __global__ void __launch_bounds__(256, 2)
    matmul_mma(const char *__restrict__ a, const char *__restrict__ b, int *__restrict__ c, int rows, int columns,
               int row_bytes) {
    extern __shared__ __align__(16) unsigned shared[];
    multiply_tile(shared, a, b, c, rows, columns, row_bytes);
}
