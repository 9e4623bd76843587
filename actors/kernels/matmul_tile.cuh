// C = A · Bᵀ by the tensor cores' instructions for one warp: what matmul_mma.cu and matmul_fp16.cu have in common.
//
// Shape: rows of A and of B are row_bytes long, a multiple of 64, and their numbers multiples of 128; C is rows ×
// columns, not padded. A block of 256 threads makes 128 × 128 of C, each of its 8 warps 64 × 32. Three steps of 64 bytes
// of the inner dimension are in shared memory or on their way there. A row there is 80 bytes apart from the next, so that
// the 32 words that a warp reads at once lie in 32 banks.

#pragma once

#include "copy_async.cuh"
#include "mma.cuh"

constexpr int TILE = 128;
constexpr int STAGES = 3;
constexpr int STEP_BYTES = 64;
constexpr int STRIDE_WORDS = (STEP_BYTES + 16) / 4;
constexpr int OPERAND_WORDS = TILE * STRIDE_WORDS;
constexpr int STAGE_WORDS = 2 * OPERAND_WORDS;

// Ask for one step of 128 rows: two chunks of 16 bytes for each thread.
__device__ __forceinline__ void load_rows(unsigned *words, const char *rows, int row_bytes) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        int chunk = threadIdx.x + 256 * i, row = chunk / 4, part = chunk % 4;
        copy_async(words + row * STRIDE_WORDS + part * 4, rows + (size_t)row * row_bytes + part * 16);
    }
}

template <typename Sum>
__device__ __forceinline__ void multiply_tile(unsigned *shared, const char *a, const char *b, Sum *c, int rows,
                                              int columns, int row_bytes) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int group = lane / 4, quarter = lane % 4;
    int first_row = warp / 4 * 64, first_column = warp % 4 * 32;
    const char *a_rows = a + (size_t)blockIdx.y * TILE * row_bytes;
    const char *b_rows = b + (size_t)blockIdx.x * TILE * row_bytes;
    int steps = row_bytes / STEP_BYTES;

    Sum sum[4][4][4] = {};
    for (int step = 0; step < STAGES - 1; ++step) {
        if (step < steps) {
            unsigned *stage = shared + step * STAGE_WORDS;
            load_rows(stage, a_rows + step * STEP_BYTES, row_bytes);
            load_rows(stage + OPERAND_WORDS, b_rows + step * STEP_BYTES, row_bytes);
        }
        copy_async_commit();
    }
    for (int step = 0; step < steps; ++step) {
        copy_async_wait<STAGES - 2>();
        // All see what each has waited for; and all have left the stage that is written next.
        __syncthreads();
        int ahead = step + STAGES - 1;
        if (ahead < steps) {
            unsigned *stage = shared + ahead % STAGES * STAGE_WORDS;
            load_rows(stage, a_rows + (size_t)ahead * STEP_BYTES, row_bytes);
            load_rows(stage + OPERAND_WORDS, b_rows + (size_t)ahead * STEP_BYTES, row_bytes);
        }
        copy_async_commit();

        const unsigned *left = shared + step % STAGES * STAGE_WORDS + (first_row + group) * STRIDE_WORDS + quarter;
        const unsigned *right =
            shared + step % STAGES * STAGE_WORDS + OPERAND_WORDS + (first_column + group) * STRIDE_WORDS + quarter;
#pragma unroll
        for (int word = 0; word < STEP_BYTES / 4; word += 8) {
            unsigned as[4][4], bs[4][2];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const unsigned *from = left + i * 16 * STRIDE_WORDS + word;
                as[i][0] = from[0];
                as[i][1] = from[8 * STRIDE_WORDS];
                as[i][2] = from[4];
                as[i][3] = from[8 * STRIDE_WORDS + 4];
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const unsigned *from = right + j * 8 * STRIDE_WORDS + word;
                bs[j][0] = from[0];
                bs[j][1] = from[4];
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) mma(sum[i][j], as[i], bs[j]);
        }
    }

#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                int row = blockIdx.y * TILE + first_row + 16 * i + group + k / 2 * 8;
                int column = blockIdx.x * TILE + first_column + 8 * j + 2 * quarter + k % 2;
                if (row < rows && column < columns) c[(size_t)row * columns + column] = sum[i][j][k];
            }
}
