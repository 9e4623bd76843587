// An integer filter over a picture of 8 bits per sample.
//
// arch: sm_75 sm_80 sm_90a
// registers: 64
// no-spill
//
// Shape: `picture` and `filtered` are height × width × channels. A block of 32 × 8 threads makes 32 × 32 samples of one
// channel, each thread EACH of them below one another; grid is (width / 32, height / 32, channels), rounded up. It first
// copies what it needs of the picture to shared memory, with a margin of half a kernel on each side; indices beyond an
// edge are brought back to it. `weights` has rows × columns, both odd and at most 15.
// Exact: 15 · 15 · 255 · 32,767 < 2^31, so no sum of int32 wraps. `/` rounds towards zero: where the remainder is
// negative, one less is the floor.
// Cost: (rows + EACH - 1) · columns steps of two loads from shared memory and EACH multiplications for EACH samples, and a
// division for each; each sample of the picture is read by every block that it lies in or beside, 1.3 times for a kernel
// of 5 × 5. Bound by multiplications, not by memory, from 3 × 3 on.

#define TILE_X 32
#define TILE_Y 32
#define THREADS_Y 8
#define EACH (TILE_Y / THREADS_Y)
#define MARGIN 14

__device__ __forceinline__ int between(int value, int least, int most) {
    return value < least ? least : value > most ? most : value;
}

extern "C" __global__ void __launch_bounds__(TILE_X * THREADS_Y)
    convolve(const unsigned char *__restrict__ picture, const int *__restrict__ weights,
             unsigned char *__restrict__ filtered, int width, int height, int channels, int rows, int columns,
             int divisor, int offset) {
    __shared__ int around[TILE_Y + MARGIN][TILE_X + MARGIN];
    __shared__ int kernel[15 * 15];
    int x0 = blockIdx.x * TILE_X, y0 = blockIdx.y * TILE_Y, channel = blockIdx.z;
    int thread = threadIdx.y * TILE_X + threadIdx.x;
    for (int i = thread; i < rows * columns; i += TILE_X * THREADS_Y) kernel[i] = weights[i];
    for (int i = threadIdx.y; i < TILE_Y + rows - 1; i += THREADS_Y) {
        int y = between(y0 + i - rows / 2, 0, height - 1);
        for (int j = threadIdx.x; j < TILE_X + columns - 1; j += TILE_X) {
            int x = between(x0 + j - columns / 2, 0, width - 1);
            around[i][j] = picture[((long long)y * width + x) * channels + channel];
        }
    }
    __syncthreads();
    int top = threadIdx.y * EACH;
    int sums[EACH] = {};
    for (int j = 0; j < columns; ++j) {
        // The weights of the last EACH rows: sample o of this thread sees row i of the picture under weight i - o.
        int last[EACH] = {};
        for (int i = 0; i < rows + EACH - 1; ++i) {
#pragma unroll
            for (int o = EACH - 1; o > 0; --o) last[o] = last[o - 1];
            last[0] = i < rows ? kernel[i * columns + j] : 0;
            int sample = around[top + i][threadIdx.x + j];
#pragma unroll
            for (int o = 0; o < EACH; ++o) sums[o] += last[o] * sample;
        }
    }
    int x = x0 + threadIdx.x;
#pragma unroll
    for (int o = 0; o < EACH; ++o) {
        int y = y0 + top + o;
        if (x < width && y < height) {
            int quotient = sums[o] / divisor - (sums[o] % divisor < 0);
            filtered[((long long)y * width + x) * channels + channel] = between(quotient + offset, 0, 255);
        }
    }
}
