// Matrices as the multiplying kernels want them: rows of both operands along the inner dimension, padded with zeros.
//
// arch: sm_61 sm_75 sm_80 sm_90a
// registers: 32
// no-spill
//
// Shape: a block of 32 × 8 threads moves a tile of 32 × 32 elements; the grid is (columns / 32, rows / 32) of the
// source. `packed` is all zeros before, and has rows of `length` elements, a multiple of 128 bytes. Rows follow one
// another; or, `tiled`, pieces of 128 rows × 128 bytes do, all of a row of pieces after each other, and within a piece
// each row has its eight chunks of 16 bytes exchanged by its number modulo 8 (chunk i lies at i xor row % 8), which is
// how wgmma wants them in shared memory.
// Exact: elements are copied.
// Cost: each element is read once and written once; a transposed tile goes through shared memory so that both are in
// whole sectors. The 33rd column keeps a tile's column in 32 different banks.

template <typename T> __device__ __forceinline__ size_t place(int row, int column, int length, int tiled) {
    if (!tiled) return (size_t)row * length + column;
    int byte = column * (int)sizeof(T), pieces = length * (int)sizeof(T) / 128;
    size_t piece = (size_t)(row / 128) * pieces + byte / 128;
    int chunk = byte % 128 / 16 ^ row % 8;
    return (piece * 16384 + row % 128 * 128 + chunk * 16 + byte % 16) / sizeof(T);
}

template <typename T>
__device__ __forceinline__ void copy_tile(const T *source, T *packed, int rows, int columns, int length, int tiled) {
    int column = blockIdx.x * 32 + threadIdx.x;
    for (int row = blockIdx.y * 32 + threadIdx.y; row < rows && row < blockIdx.y * 32 + 32; row += 8)
        if (column < columns) packed[place<T>(row, column, length, tiled)] = source[(size_t)row * columns + column];
}

template <typename T>
__device__ __forceinline__ void transpose_tile(T (*tile)[33], const T *source, T *packed, int rows, int columns,
                                               int length, int tiled) {
    int column = blockIdx.x * 32 + threadIdx.x;
    for (int i = threadIdx.y; i < 32; i += 8) {
        int row = blockIdx.y * 32 + i;
        if (row < rows && column < columns) tile[i][threadIdx.x] = source[(size_t)row * columns + column];
    }
    __syncthreads();
    int row = blockIdx.y * 32 + threadIdx.x;
    for (int i = threadIdx.y; i < 32; i += 8) {
        int packed_row = blockIdx.x * 32 + i;
        if (row < rows && packed_row < columns) packed[place<T>(packed_row, row, length, tiled)] = tile[threadIdx.x][i];
    }
}

extern "C" __global__ void pack_rows_8(const signed char *source, signed char *packed, int rows,
                                          int columns, int length, int tiled) {
    copy_tile(source, packed, rows, columns, length, tiled);
}

extern "C" __global__ void pack_columns_8(const signed char *source, signed char *packed, int rows,
                                          int columns, int length, int tiled) {
    __shared__ signed char tile[32][33];
    transpose_tile(tile, source, packed, rows, columns, length, tiled);
}

extern "C" __global__ void pack_rows_16(const unsigned short *source, unsigned short *packed, int rows,
                                          int columns, int length, int tiled) {
    copy_tile(source, packed, rows, columns, length, tiled);
}

extern "C" __global__ void pack_columns_16(const unsigned short *source, unsigned short *packed, int rows,
                                          int columns, int length, int tiled) {
    __shared__ unsigned short tile[32][33];
    transpose_tile(tile, source, packed, rows, columns, length, tiled);
}
