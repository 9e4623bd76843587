// C = A · Bᵀ for matrices of integers held as halves, with the tensor cores' mma.sync, for sm_80 and up.
//
// arch: sm_80 sm_90a
// registers: 128
// no-spill
//
// Shape: see matmul_tile.cuh; an element is two bytes. It needs 61,440 bytes of dynamic shared memory.
// Exact: all elements are integers of magnitude at most L with K · L² ≤ 2^23, so every product, and every sum of any
// choice of them, is an integer of magnitude at most 2^23. A float holds those exactly, and so does an adder that aligns
// its terms to the largest one and keeps 24 bits of each, as the tensor cores do: no order and no way of rounding changes
// the result.
// Cost: m n K / 2048 instructions of a warp; a step of 64 bytes of the inner dimension reads 16 KiB for 256 of them.

#include "matmul_tile.cuh"

extern "C" __global__ void __launch_bounds__(256, 2)
    matmul_fp16(const char *__restrict__ a, const char *__restrict__ b, float *__restrict__ c, int rows, int columns,
                int row_bytes) {
    extern __shared__ __align__(16) unsigned shared[];
    multiply_tile(shared, a, b, c, rows, columns, row_bytes);
}
