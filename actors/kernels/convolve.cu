// An integer filter over a picture of 8 bits per sample.
//
// arch: sm_75 sm_80 sm_90a
// registers: 64
// no-spill
//
// Shape: `picture` and `filtered` are height × width × channels. A block of 32 × 8 threads makes as many samples of one
// channel, one per thread; grid is (width / 32, height / 8, channels), rounded up. It first copies what it needs of the
// picture to shared memory, with a margin of half a kernel on each side; indices beyond an edge are brought back to it.
// `weights` has rows × columns, both odd and at most 15.
// Exact: 15 · 15 · 255 · 32,767 < 2^31, so no sum of int32 wraps. `/` rounds towards zero: where the remainder is
// negative, one less is the floor.
// Cost: rows · columns multiplications and loads from shared memory per sample, one division; each sample of the picture
// is read once per block that it lies in or beside, at most 4 times for a kernel of 15 × 15.

#define TILE_X 32
#define TILE_Y 8
#define MARGIN 14

__device__ __forceinline__ int between(int value, int least, int most) {
    return value < least ? least : value > most ? most : value;
}

extern "C" __global__ void __launch_bounds__(256)
    convolve(const unsigned char *__restrict__ picture, const int *__restrict__ weights,
             unsigned char *__restrict__ filtered, int width, int height, int channels, int rows, int columns,
             int divisor, int offset) {
    __shared__ int near[TILE_Y + MARGIN][TILE_X + MARGIN];
    __shared__ int kernel[15 * 15];
    int x0 = blockIdx.x * TILE_X, y0 = blockIdx.y * TILE_Y, channel = blockIdx.z;
    int thread = threadIdx.y * TILE_X + threadIdx.x;
    for (int i = thread; i < rows * columns; i += TILE_X * TILE_Y) kernel[i] = weights[i];
    int wide = TILE_X + columns - 1, high = TILE_Y + rows - 1;
    for (int i = thread; i < wide * high; i += TILE_X * TILE_Y) {
        int x = between(x0 + i % wide - columns / 2, 0, width - 1);
        int y = between(y0 + i / wide - rows / 2, 0, height - 1);
        near[i / wide][i % wide] = picture[((long long)y * width + x) * channels + channel];
    }
    __syncthreads();
    int x = x0 + threadIdx.x, y = y0 + threadIdx.y;
    if (x >= width || y >= height) return;
    int sum = 0;
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) sum += kernel[i * columns + j] * near[threadIdx.y + i][threadIdx.x + j];
    int quotient = sum / divisor - (sum % divisor < 0);
    filtered[((long long)y * width + x) * channels + channel] = between(quotient + offset, 0, 255);
}
