// Matrices as the multiplying kernels want them: rows of both operands along the inner dimension, padded with zeros.
//
// arch: sm_61 sm_75 sm_80 sm_90a
// registers: 32
// no-spill
//
// Shape: a block of 32 × 8 threads moves a tile of 32 × 32 elements; the grid is (columns / 32, rows / 32) of the
// source. `packed` is all zeros before, and has rows of `packed_columns` elements.
// Exact: elements are copied.
// Cost: each element is read once and written once; a transposed tile goes through shared memory so that both are in
// whole sectors. The 33rd column keeps a tile's column in 32 different banks.

template <typename T>
__device__ __forceinline__ void copy_tile(const T *source, T *packed, int rows, int columns, int packed_columns) {
    int column = blockIdx.x * 32 + threadIdx.x;
    for (int row = blockIdx.y * 32 + threadIdx.y; row < rows && row < blockIdx.y * 32 + 32; row += 8)
        if (column < columns) packed[(size_t)row * packed_columns + column] = source[(size_t)row * columns + column];
}

template <typename T>
__device__ __forceinline__ void transpose_tile(T (*tile)[33], const T *source, T *packed, int rows, int columns,
                                               int packed_columns) {
    int column = blockIdx.x * 32 + threadIdx.x;
    for (int i = threadIdx.y; i < 32; i += 8) {
        int row = blockIdx.y * 32 + i;
        if (row < rows && column < columns) tile[i][threadIdx.x] = source[(size_t)row * columns + column];
    }
    __syncthreads();
    int row = blockIdx.y * 32 + threadIdx.x;
    for (int i = threadIdx.y; i < 32; i += 8) {
        int packed_row = blockIdx.x * 32 + i;
        if (row < rows && packed_row < columns) packed[(size_t)packed_row * packed_columns + row] = tile[threadIdx.x][i];
    }
}

extern "C" __global__ void pack_rows_8(const signed char *source, signed char *packed, int rows, int columns,
                                       int packed_columns) {
    copy_tile(source, packed, rows, columns, packed_columns);
}

extern "C" __global__ void pack_columns_8(const signed char *source, signed char *packed, int rows, int columns,
                                          int packed_columns) {
    __shared__ signed char tile[32][33];
    transpose_tile(tile, source, packed, rows, columns, packed_columns);
}

extern "C" __global__ void pack_rows_16(const unsigned short *source, unsigned short *packed, int rows, int columns,
                                        int packed_columns) {
    copy_tile(source, packed, rows, columns, packed_columns);
}

extern "C" __global__ void pack_columns_16(const unsigned short *source, unsigned short *packed, int rows, int columns,
                                           int packed_columns) {
    __shared__ unsigned short tile[32][33];
    transpose_tile(tile, source, packed, rows, columns, packed_columns);
}
