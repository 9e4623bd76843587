// C = A · Bᵀ for matrices of integers held as halves, without tensor cores: for cards before sm_80.
//
// arch: sm_61 sm_75 sm_80 sm_90a
// registers: 64
// no-spill
//
// Shape: A is m × K and B is n × K, padded with zeros to multiples of 128; C is rows × columns, not padded. A block of
// 16 × 16 threads makes 64 × 64 of C, each thread 4 × 4 of it with rows and columns 16 apart; the grid is (columns, rows)
// of tiles. Shared memory holds 16 of the inner dimension, as floats; the 17th column keeps a column in many banks.
// Exact: all elements are integers of magnitude at most L with K · L² ≤ 2^23: every product and every sum of products is
// an integer that a float holds, so neither the order nor fusing changes anything.
// Cost: m n K fused multiply-adds; for each 16 of them a thread reads 8 floats of shared memory.

#include <cuda_fp16.h>

#define TILE 64
#define STEP 16

extern "C" __global__ void __launch_bounds__(256)
    matmul_fp16_plain(const unsigned short *__restrict__ a, const unsigned short *__restrict__ b, float *__restrict__ c,
                      int rows, int columns, int inner) {
    __shared__ float left[TILE][STEP + 1];
    __shared__ float right[TILE][STEP + 1];

    int x = threadIdx.x, y = threadIdx.y;
    float sum[4][4] = {};
    for (int start = 0; start < inner; start += STEP) {
        for (int i = y; i < TILE; i += 16) {
            left[i][x] = __half2float(__ushort_as_half(a[(size_t)(blockIdx.y * TILE + i) * inner + start + x]));
            right[i][x] = __half2float(__ushort_as_half(b[(size_t)(blockIdx.x * TILE + i) * inner + start + x]));
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < STEP; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sum[i][j] += left[y + 16 * i][k] * right[x + 16 * j][k];
        __syncthreads();
    }

    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
            int row = blockIdx.y * TILE + y + 16 * i, column = blockIdx.x * TILE + x + 16 * j;
            if (row < rows && column < columns) c[(size_t)row * columns + column] = sum[i][j];
        }
}
