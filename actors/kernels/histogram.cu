// How many integers fall below a row of equal bins, into each, and above.
//
// arch: sm_75 sm_80 sm_90a
// registers: 48
// no-spill
//
// Shape: `counts` has bins + 2 places, all zero before: below, the bins, above. A block of 256 threads counts into TILE
// of the places, in shared memory; grid.y is the number of tiles, each of which reads all values, and grid.x what fills
// the card. `values` is 16 bytes aligned and filled up to a multiple of 16 bytes, whatever with.
// Exact: value - low is at most 2^32 - 1 where it is not negative. For such an n and a width d from 2 on, with
// `reciprocal` = floor((2^64 - 1) / d) + 1 = (2^64 + e) / d, 0 <= e < d,
//     n · reciprocal / 2^64 = n / d + n e / (d 2^64),   n e / (d 2^64) < 2^-32 < 1 / d,
// so the floor of both is the same. `reciprocal` 0 stands for the width 1. Counts are integers below 2^31: the order in
// which atomics add them does not matter.
// Cost: every tile reads each value once, 16 bytes per thread and step, and adds to shared memory once per value in it;
// where many neighbours have one value, these additions wait for each other, up to 32 deep.

typedef unsigned int word;

#define TILE 8192

__device__ __forceinline__ word place_of(long long value, int low, unsigned long long reciprocal, word bins) {
    long long offset = value - low;
    if (offset < 0) return 0;
    word n = (word)offset;
    word bin = reciprocal == 0 ? n : (word)__umul64hi(reciprocal, n);
    return (bin < bins ? bin : bins) + 1;
}

template <typename T>
__device__ __forceinline__ void count(word *tile, const uint4 *values, word *counts, long long length, int low,
                                      unsigned long long reciprocal, int bins) {
    constexpr int per_quad = 16 / sizeof(T);
    word first = blockIdx.y * TILE, places = bins + 2;
    word size = places - first < TILE ? places - first : TILE;
    for (word place = threadIdx.x; place < size; place += blockDim.x) tile[place] = 0;
    __syncthreads();
    long long quads = (length + per_quad - 1) / per_quad;
    for (long long quad = blockIdx.x * blockDim.x + threadIdx.x; quad < quads; quad += gridDim.x * blockDim.x) {
        uint4 loaded = values[quad];
        const T *parts = (const T *)&loaded;
#pragma unroll
        for (int part = 0; part < per_quad; ++part) {
            word place = place_of(parts[part], low, reciprocal, bins) - first;
            if (place < size && quad * per_quad + part < length) atomicAdd(&tile[place], 1u);
        }
    }
    __syncthreads();
    for (word place = threadIdx.x; place < size; place += blockDim.x)
        if (tile[place]) atomicAdd(&counts[first + place], tile[place]);
}

extern "C" __global__ void __launch_bounds__(256) histogram_uint8(const uint4 *__restrict__ values, word *counts,
                                                                  long long length, int low,
                                                                  unsigned long long reciprocal, int bins) {
    __shared__ word tile[TILE];
    count<unsigned char>(tile, values, counts, length, low, reciprocal, bins);
}

extern "C" __global__ void __launch_bounds__(256) histogram_uint16(const uint4 *__restrict__ values, word *counts,
                                                                   long long length, int low,
                                                                   unsigned long long reciprocal, int bins) {
    __shared__ word tile[TILE];
    count<unsigned short>(tile, values, counts, length, low, reciprocal, bins);
}

extern "C" __global__ void __launch_bounds__(256) histogram_int16(const uint4 *__restrict__ values, word *counts,
                                                                  long long length, int low,
                                                                  unsigned long long reciprocal, int bins) {
    __shared__ word tile[TILE];
    count<short>(tile, values, counts, length, low, reciprocal, bins);
}

extern "C" __global__ void __launch_bounds__(256) histogram_int32(const uint4 *__restrict__ values, word *counts,
                                                                  long long length, int low,
                                                                  unsigned long long reciprocal, int bins) {
    __shared__ word tile[TILE];
    count<int>(tile, values, counts, length, low, reciprocal, bins);
}
