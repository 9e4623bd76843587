// C = A · Bᵀ for int8 matrices with Hopper's wgmma and bulk copies: compute capability 9.0 alone.
//
// arch: sm_90a
// registers: 168
// no-spill
//
// Tested on the CPU only, where a header stands for hopper.cuh; no GPU has run it yet.
//
// Shape: A and B are in pieces of 128 rows × 128 bytes as pack.cu lays them out, B in an even number of rows of pieces; C
// is rows × columns, not padded. A block makes 128 × 256 of C with three groups of 128 threads: one thread of the first
// asks for copies, the other two groups each multiply 64 × 256. Four steps of 128 bytes of the inner dimension, 48 KiB
// each, are in shared memory or on their way there; with what alignment and barriers take it needs 198,656 bytes of
// dynamic shared memory.
// Order: blocks that run at the same time make a region that is about as high as wide, so that they share operands in
// the second-level cache: `blockIdx.x`, the only index, goes down 8 rows of tiles before it goes to the next column.
// Exact: wgmma adds products of int8 to an int32 without rounding or saturation; every partial sum is at most
// K · 2^14 < 2^31 for K ≤ 131,071.
// Cost: m n K / 524,288 instructions of a group; a step reads 48 KiB for 4,194,304 products.

#include "hopper.cuh"

constexpr int TILE_ROWS = 128, TILE_COLUMNS = 256;
constexpr int STAGES = 4;
constexpr int PIECE_BYTES = 128 * 128;
constexpr int STAGE_BYTES = 3 * PIECE_BYTES;
constexpr int BAND = 8;

__device__ __forceinline__ void copy_steps(char *stages, Barrier *full, Barrier *empty, const char *a, const char *b,
                                           int steps) {
    for (int step = 0; step < steps; ++step) {
        int stage = step % STAGES;
        // The first round finds all stages empty: the phase before the first counts as over.
        barrier_wait(&empty[stage], step / STAGES % 2 ^ 1);
        barrier_expect(&full[stage], STAGE_BYTES);
        char *to = stages + stage * STAGE_BYTES;
        size_t piece = (size_t)step * PIECE_BYTES;
        copy_bulk(to, a + piece, PIECE_BYTES, &full[stage]);
        copy_bulk(to + PIECE_BYTES, b + piece, PIECE_BYTES, &full[stage]);
        copy_bulk(to + 2 * PIECE_BYTES, b + (size_t)steps * PIECE_BYTES + piece, PIECE_BYTES, &full[stage]);
    }
}

__device__ __forceinline__ void multiply_steps(int (&sum)[128], char *stages, Barrier *full, Barrier *empty, int half,
                                               int steps) {
    for (int step = 0; step < steps; ++step) {
        int stage = step % STAGES;
        barrier_wait(&full[stage], step / STAGES % 2);
        const char *left = stages + stage * STAGE_BYTES + half * 64 * 128;
        const char *right = stages + stage * STAGE_BYTES + PIECE_BYTES;
        wgmma_begin();
#pragma unroll
        for (int byte = 0; byte < 128; byte += 32)
            wgmma_64x256(sum, descriptor(left, byte), descriptor(right, byte), step + byte > 0);
        wgmma_commit();
        // This step goes on while the next one is waited for; the one before it is done, and its stage can be filled.
        wgmma_wait<1>();
        if (step > 0 && threadIdx.x % 32 == 0) barrier_arrive(&empty[(step - 1) % STAGES]);
    }
    wgmma_finish(sum);
}

extern "C" __global__ void __launch_bounds__(384, 1)
    matmul_wgmma(const char *__restrict__ a, const char *__restrict__ b, int *__restrict__ c, int rows, int columns,
                 int row_bytes) {
    extern __shared__ __align__(16) char shared[];
    char *stages = shared + (1024 - (size_t)shared % 1024) % 1024;
    Barrier *full = (Barrier *)(stages + STAGES * STAGE_BYTES), *empty = full + STAGES;

    int tiles_high = (rows + TILE_ROWS - 1) / TILE_ROWS, width = (columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
    int band = blockIdx.x / (BAND * width), first = band * BAND;
    int height = tiles_high - first < BAND ? tiles_high - first : BAND;
    int within = blockIdx.x - first * width;
    int tile_row = first + within % height, tile_column = within / height;

    int steps = row_bytes / 128;
    int group = threadIdx.x / 128;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; ++stage) {
            barrier_init(&full[stage], 1);
            barrier_init(&empty[stage], 8);
        }
        barrier_init_done();
    }
    __syncthreads();

    if (group == 0) {
        if (threadIdx.x == 0)
            copy_steps(stages, full, empty, a + (size_t)tile_row * steps * PIECE_BYTES,
                       b + (size_t)tile_column * 2 * steps * PIECE_BYTES, steps);
        return;
    }

    int half = group - 1;
    int sum[128];  // the first product sets them
    multiply_steps(sum, stages, full, empty, half, steps);

    int lane = threadIdx.x % 32;
    int first_row = tile_row * TILE_ROWS + half * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
    int first_column = tile_column * TILE_COLUMNS + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 128; ++i) {
        int row = first_row + i / 2 % 2 * 8, column = first_column + i / 4 * 8 + i % 2;
        if (row < rows && column < columns) c[(size_t)row * columns + column] = sum[i];
    }
}
