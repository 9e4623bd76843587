// Memory filled from a seed, and walks that read all over it: what `actors/attestation/fill.py` describes.
//
// arch: sm_61 sm_75 sm_80 sm_90a
// registers: 96
// no-spill
//
// Shape of fill_labels: a thread makes one label of 32 bytes, number `first` + its own; blocks of 256 threads.
// Shape of fill_walks: a thread makes one walk of `steps` steps and writes the leaf hash of its last state; blocks of 64
// threads. `labels` is how many there are. Labels and leaves lie as bytes, states are kept as big-endian words.
// Exact: 32-bit integers modulo 2^32, and one division of 64 bits.
// Cost: four compressions per label; two compressions and one read of 32 bytes from anywhere per step.

#include "sha256.cuh"

typedef unsigned long long index_t;

__device__ __forceinline__ word swapped(word x) { return __byte_perm(x, 0, 0x0123); }

__device__ __forceinline__ void start(word (&state)[8]) {
    state[0] = 0x6a09e667, state[1] = 0xbb67ae85, state[2] = 0x3c6ef372, state[3] = 0xa54ff53a;
    state[4] = 0x510e527f, state[5] = 0x9b05688c, state[6] = 0x1f83d9ab, state[7] = 0x5be0cd19;
}

// SHA-256 of the first `bytes` (a multiple of 4, at most 52) of `w`, into `state`.
__device__ __forceinline__ void hashed(word (&state)[8], word (&w)[16], int bytes) {
#pragma unroll
    for (int i = 0; i < 16; ++i)
        if (i >= bytes / 4) w[i] = 0;
    w[bytes / 4] = 0x80000000u;
    w[15] = bytes * 8;
    start(state);
    compress(state, w);
}

__device__ __forceinline__ void begun(word (&w)[16], const word *seed, index_t number) {
#pragma unroll
    for (int i = 0; i < 8; ++i) w[i] = swapped(seed[i]);
    w[8] = swapped((word)number);
    w[9] = swapped((word)(number >> 32));
}

extern "C" __global__ void __launch_bounds__(256)
    fill_labels(uint4 *__restrict__ labels, const word *__restrict__ seed, index_t first, index_t count) {
    index_t own = (index_t)blockIdx.x * 256 + threadIdx.x;
    if (own >= count) return;
    word state[8], w[16];
    begun(w, seed, first + own);
    hashed(state, w, 40);
#pragma unroll 1
    for (int again = 1; again < 4; ++again) {
#pragma unroll
        for (int i = 0; i < 8; ++i) w[i] = state[i];
        hashed(state, w, 32);
    }
    uint4 *to = labels + (first + own) * 2;
    to[0] = make_uint4(swapped(state[0]), swapped(state[1]), swapped(state[2]), swapped(state[3]));
    to[1] = make_uint4(swapped(state[4]), swapped(state[5]), swapped(state[6]), swapped(state[7]));
}

extern "C" __global__ void __launch_bounds__(64)
    fill_walks(const uint4 *__restrict__ memory, index_t labels, const word *__restrict__ seed, word *__restrict__ leaves,
               index_t first, int count, int steps) {
    int own = blockIdx.x * 64 + threadIdx.x;
    if (own >= count) return;
    word state[8], w[16];
    begun(w, seed, first + own);
    w[10] = 0x77616c6bu;  // "walk"
    hashed(state, w, 44);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        index_t at = ((index_t)swapped(state[1]) << 32 | swapped(state[0])) % labels;
        uint4 low = memory[at * 2], high = memory[at * 2 + 1];
#pragma unroll
        for (int i = 0; i < 8; ++i) w[i] = state[i];
        w[8] = swapped(low.x), w[9] = swapped(low.y), w[10] = swapped(low.z), w[11] = swapped(low.w);
        w[12] = swapped(high.x), w[13] = swapped(high.y), w[14] = swapped(high.z), w[15] = swapped(high.w);
        start(state);
        compress(state, w);
        // The second block of 64 bytes: only padding.
#pragma unroll
        for (int i = 0; i < 16; ++i) w[i] = 0;
        w[0] = 0x80000000u, w[15] = 512;
        compress(state, w);
    }
    // The leaf: a zero byte before the state shifts it by one byte.
    word before = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        w[i] = before << 24 | state[i] >> 8;
        before = state[i];
    }
    w[8] = before << 24 | 0x00800000u;
#pragma unroll
    for (int i = 9; i < 15; ++i) w[i] = 0;
    w[15] = 33 * 8;
    start(state);
    compress(state, w);
#pragma unroll
    for (int i = 0; i < 8; ++i) leaves[(size_t)own * 8 + i] = swapped(state[i]);
}
