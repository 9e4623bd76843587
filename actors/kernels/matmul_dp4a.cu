// C = A · Bᵀ for int8 matrices with dp4a: for cards without tensor cores for integers (compute capability 6.1 and up).
//
// arch: sm_61 sm_75 sm_80 sm_90a
// registers: 128
// no-spill
//
// Shape: A is m × K and B is n × K, padded with zeros to multiples of 128 × 128; C is rows × columns, not padded. A
// block of 256 threads makes 128 × 128 of C, each thread 8 × 8: rows 4 y … and 64 + 4 y …, columns likewise, so that the
// 16-byte loads of eight neighbours meet no bank twice. The grid is (columns, rows) of tiles.
// Exact: dp4a adds four products of int8 to an int32 without rounding or saturation; every partial sum is at most
// K · 2^14 < 2^31 for K ≤ 131,071.
// Cost: m n K / 4 dp4a; per step of 32 of the inner dimension a tile reads 8 KiB for 131,072 dp4a. Shared memory holds
// two steps: the next one is on its way from global memory while this one is multiplied.

#define TILE 128
#define STEP 8  // words of four int8
#define STRIDE (TILE + 4)

extern "C" __global__ void __launch_bounds__(256) matmul_dp4a(const int4 *__restrict__ a, const int4 *__restrict__ b,
                                                              int *__restrict__ c, int rows, int columns, int inner) {
    __shared__ __align__(16) int left[2][STEP][STRIDE];
    __shared__ __align__(16) int right[2][STEP][STRIDE];

    int thread = threadIdx.x;
    int x = thread % 16, y = thread / 16;
    // Each thread carries 16 bytes of either operand: half of a row of the step.
    int load_row = thread / 2, load_word = thread % 2 * 4;
    int quads = inner / 16;
    const int4 *from_a = a + (size_t)(blockIdx.y * TILE + load_row) * quads + thread % 2;
    const int4 *from_b = b + (size_t)(blockIdx.x * TILE + load_row) * quads + thread % 2;

    int sum[8][8] = {};
    int4 next_a = from_a[0], next_b = from_b[0];
    int steps = inner / (STEP * 4);
    for (int step = 0; step < steps; ++step) {
        int now = step % 2;
        left[now][load_word + 0][load_row] = next_a.x;
        left[now][load_word + 1][load_row] = next_a.y;
        left[now][load_word + 2][load_row] = next_a.z;
        left[now][load_word + 3][load_row] = next_a.w;
        right[now][load_word + 0][load_row] = next_b.x;
        right[now][load_word + 1][load_row] = next_b.y;
        right[now][load_word + 2][load_row] = next_b.z;
        right[now][load_word + 3][load_row] = next_b.w;
        // One barrier is enough: whoever writes this half again has passed the next one, after all had read it.
        __syncthreads();
        if (step + 1 < steps) {
            next_a = from_a[(step + 1) * 2];
            next_b = from_b[(step + 1) * 2];
        }
#pragma unroll
        for (int word = 0; word < STEP; ++word) {
            int4 a0 = *(const int4 *)&left[now][word][4 * y], a1 = *(const int4 *)&left[now][word][64 + 4 * y];
            int4 b0 = *(const int4 *)&right[now][word][4 * x], b1 = *(const int4 *)&right[now][word][64 + 4 * x];
            int as[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w};
            int bs[8] = {b0.x, b0.y, b0.z, b0.w, b1.x, b1.y, b1.z, b1.w};
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j) sum[i][j] = __dp4a(as[i], bs[j], sum[i][j]);
        }
    }

#pragma unroll
    for (int i = 0; i < 8; ++i) {
        int row = blockIdx.y * TILE + i / 4 * 64 + 4 * y + i % 4;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            int column = blockIdx.x * TILE + j / 4 * 64 + 4 * x + j % 4;
            if (row < rows && column < columns) c[(size_t)row * columns + column] = sum[i][j];
        }
    }
}
