// A stable radix sort of integers, eight bits per pass, least significant first.
//
// arch: sm_75 sm_80 sm_90a
// registers: 128
// no-spill
//
// Shape: a pass is three launches. Tiles of TILE keys, one per block of 256 threads, are counted by digit
// (`radix_count`, into counts[digit][tile]); each digit's row is summed up to exclusive prefixes, and its total kept
// (`radix_scan`, a block of up to 256 threads per digit); each tile is put in order of its digits in shared memory and
// written to where its digits belong (`radix_scatter`). The digit is (key >> shift & 255) ^ flip: flip is 128 in the
// last pass over signed keys, so that the negative ones come first, else 0.
// Exact: integers are moved and counted. The order of equal digits is that of the keys before the pass: a tile's warps
// take keys in order, and ranks come from votes of the warp, not from atomics. The counts that atomics add up do not
// depend on their order.
// Cost: a pass reads the keys twice and writes them once; written are runs of one digit, 16 keys long on average.

typedef unsigned int word;

#define THREADS 256
#define WARPS 8
#define PER_THREAD 16
#define TILE (THREADS * PER_THREAD)
#define DIGITS 256

template <typename T> __device__ __forceinline__ word digit_of(T key, int shift, int flip) {
    return ((word)(key >> shift) & (DIGITS - 1)) ^ flip;
}

// The sum of the values of all threads before this one, and in `total` of all of the block, which all call it. `sums`
// has a place per warp.
__device__ __forceinline__ word sum_before(word value, word *sums, word *total) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    word inclusive = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        word other = __shfl_up_sync(0xFFFFFFFFu, inclusive, distance);
        if (lane >= distance) inclusive += other;
    }
    if (lane == 31) sums[warp] = inclusive;
    __syncthreads();
    word before = 0, all = 0;
    for (int i = 0; i < blockDim.x / 32; ++i) {
        if (i < warp) before += sums[i];
        all += sums[i];
    }
    // The places are free for the next call once all have read them.
    __syncthreads();
    *total = all;
    return before + inclusive - value;
}

template <typename T>
__device__ __forceinline__ void count(word *counted, const T *keys, word *counts, word length, int shift, int flip) {
    counted[threadIdx.x] = 0;
    __syncthreads();
    word first = blockIdx.x * TILE;
#pragma unroll
    for (int item = 0; item < PER_THREAD; ++item) {
        word index = first + item * THREADS + threadIdx.x;
        if (index < length) atomicAdd(&counted[digit_of(keys[index], shift, flip)], 1u);
    }
    __syncthreads();
    counts[threadIdx.x * gridDim.x + blockIdx.x] = counted[threadIdx.x];
}

template <typename T>
__device__ __forceinline__ void scatter(T *staged, word (*ranks)[DIGITS], word *starts, word *sums, const T *keys,
                                        T *ordered, const word *counts, const word *totals, word length, int shift,
                                        int flip) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    word first = blockIdx.x * TILE;
    word size = length - first < TILE ? length - first : TILE;
    for (int i = threadIdx.x; i < WARPS * DIGITS; i += THREADS) (&ranks[0][0])[i] = 0;
    __syncthreads();

    // How many keys of this digit the warp has met before: what each key keeps, and what is kept for the next ones.
    T mine[PER_THREAD];
    word before[PER_THREAD];
#pragma unroll
    for (int item = 0; item < PER_THREAD; ++item) {
        word index = (warp * PER_THREAD + item) * 32 + lane;
        if (index - lane >= size) break;  // the whole warp is beyond the last tile's end
        mine[item] = index < size ? keys[first + index] : T(0);
        word digit = digit_of(mine[item], shift, flip);
        word alike = __ballot_sync(0xFFFFFFFFu, index < size);
#pragma unroll
        for (int bit = 0; bit < 8; ++bit) {
            word set = __ballot_sync(0xFFFFFFFFu, digit >> bit & 1);
            alike &= digit >> bit & 1 ? set : ~set;
        }
        word earlier = __popc(alike & ((1u << lane) - 1));
        before[item] = ranks[warp][digit] + earlier;
        __syncwarp();
        if (index < size && earlier == 0) ranks[warp][digit] += __popc(alike);
        __syncwarp();
    }
    __syncthreads();

    // A thread per digit: where in the tile it starts for each warp, and where its run goes.
    word digit = threadIdx.x, found = 0, ignored;
    for (int i = 0; i < WARPS; ++i) {
        word of_warp = ranks[i][digit];
        ranks[i][digit] = found;
        found += of_warp;
    }
    word in_tile = sum_before(found, sums, &ignored);
    word in_all = sum_before(totals[digit], sums, &ignored) + counts[digit * gridDim.x + blockIdx.x];
    for (int i = 0; i < WARPS; ++i) ranks[i][digit] += in_tile;
    starts[digit] = in_all - in_tile;
    __syncthreads();

#pragma unroll
    for (int item = 0; item < PER_THREAD; ++item) {
        word index = (warp * PER_THREAD + item) * 32 + lane;
        if (index < size) staged[ranks[warp][digit_of(mine[item], shift, flip)] + before[item]] = mine[item];
    }
    __syncthreads();
    for (word index = threadIdx.x; index < size; index += THREADS) {
        T key = staged[index];
        ordered[starts[digit_of(key, shift, flip)] + index] = key;
    }
}

extern "C" __global__ void __launch_bounds__(256) radix_count_32(const word *__restrict__ keys,
                                                                 word *__restrict__ counts, word length, int shift,
                                                                 int flip) {
    __shared__ word counted[DIGITS];
    count(counted, keys, counts, length, shift, flip);
}

extern "C" __global__ void __launch_bounds__(256) radix_count_64(const unsigned long long *__restrict__ keys,
                                                                 word *__restrict__ counts, word length, int shift,
                                                                 int flip) {
    __shared__ word counted[DIGITS];
    count(counted, keys, counts, length, shift, flip);
}

extern "C" __global__ void __launch_bounds__(256) radix_scan(word *counts, word *totals, word tiles) {
    __shared__ word sums[WARPS];
    word *row = counts + (size_t)blockIdx.x * tiles;
    word carried = 0;
    for (word start = 0; start < tiles; start += blockDim.x) {
        word tile = start + threadIdx.x, total;
        word value = tile < tiles ? row[tile] : 0;
        word before = sum_before(value, sums, &total);
        if (tile < tiles) row[tile] = carried + before;
        carried += total;
    }
    if (threadIdx.x == 0) totals[blockIdx.x] = carried;
}

extern "C" __global__ void __launch_bounds__(256) radix_scatter_32(const word *__restrict__ keys,
                                                                   word *__restrict__ ordered,
                                                                   const word *__restrict__ counts,
                                                                   const word *__restrict__ totals, word length,
                                                                   int shift, int flip) {
    __shared__ word staged[TILE];
    __shared__ word ranks[WARPS][DIGITS], starts[DIGITS], sums[WARPS];
    scatter(staged, ranks, starts, sums, keys, ordered, counts, totals, length, shift, flip);
}

extern "C" __global__ void __launch_bounds__(256) radix_scatter_64(const unsigned long long *__restrict__ keys,
                                                                   unsigned long long *__restrict__ ordered,
                                                                   const word *__restrict__ counts,
                                                                   const word *__restrict__ totals, word length,
                                                                   int shift, int flip) {
    __shared__ unsigned long long staged[TILE];
    __shared__ word ranks[WARPS][DIGITS], starts[DIGITS], sums[WARPS];
    scatter(staged, ranks, starts, sums, keys, ordered, counts, totals, length, shift, flip);
}
