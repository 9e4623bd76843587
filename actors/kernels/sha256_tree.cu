// The leaf hashes of a Merkle tree (RFC 9162): SHA-256(0x00 ‖ chunk) of each chunk.
//
// arch: sm_75 sm_80 sm_90a
// registers: 96
// no-spill
//
// Shape: a block is one warp, each thread hashes one chunk; the grid is chunks / 32. `data` is the chunks one after the
// other, 16 bytes aligned and followed by zeros up to a multiple of 64 bytes; a chunk has `chunk_bytes`, a multiple of
// 64, only the last may be shorter. `hashes` takes eight words of the big-endian digest per chunk.
// Exact: 32-bit integers modulo 2^32, as FIPS 180-4 defines them.
// Cost: 64 rounds per 64 bytes, about 1,700 integer instructions, one after the other: a chunk cannot be shared by
// threads. What a card reaches depends on the number of chunks. The warp reads 64 bytes of each of its chunks together,
// four threads per chunk, so that whole sectors are read, and the next ones are on their way while these are hashed.
// The zero byte before the data shifts all of it by one byte: a message word holds the last byte of the word before.

#include "sha256.cuh"

// 16 bytes of each of eight of the warp's chunks; four calls read the 64 bytes of all 32. Zeros beyond a chunk's end.
__device__ __forceinline__ uint4 fetched(const uint4 *data, int first, int chunks, long long bytes, int chunk_bytes,
                                         int eighth, int step) {
    int chunk = first + eighth * 8 + threadIdx.x / 4;
    long long within = (long long)step * 64 + threadIdx.x % 4 * 16;
    long long at = (long long)chunk * chunk_bytes + within;
    if (chunk >= chunks || within >= chunk_bytes || at >= bytes) return make_uint4(0, 0, 0, 0);
    return data[at / 16];
}

extern "C" __global__ void __launch_bounds__(32) sha256_leaves(const uint4 *__restrict__ data,
                                                               word *__restrict__ hashes, long long bytes,
                                                               int chunk_bytes, int chunks) {
    // Seventeen words per chunk: the threads then read their words from different banks.
    __shared__ word staged[32][17];
    int first = blockIdx.x * 32, lane = threadIdx.x;
    int chunk = first + lane;
    long long start = (long long)chunk * chunk_bytes;
    int length = start >= bytes ? 0 : (int)(bytes - start < chunk_bytes ? bytes - start : chunk_bytes);
    // The zero byte, the data, 0x80 and eight bytes of length.
    int blocks = (1 + length + 1 + 8 + 63) / 64;

    word state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    word before = 0;  // the last word of the data so far, as it lies in memory
    uint4 next[4];
#pragma unroll
    for (int eighth = 0; eighth < 4; ++eighth)
        next[eighth] = fetched(data, first, chunks, bytes, chunk_bytes, eighth, 0);
    // As many as the longest chunk needs: all threads meet at every barrier.
    int steps = (1 + chunk_bytes + 1 + 8 + 63) / 64;
    for (int step = 0; step < steps; ++step) {
#pragma unroll
        for (int eighth = 0; eighth < 4; ++eighth) {
            word *row = &staged[eighth * 8 + lane / 4][lane % 4 * 4];
            row[0] = next[eighth].x, row[1] = next[eighth].y, row[2] = next[eighth].z, row[3] = next[eighth].w;
        }
        __syncthreads();
        word w[16];
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            word now = staged[lane][i];
            w[i] = __byte_perm(before, now, 0x3456);
            before = now;
        }
        __syncthreads();
#pragma unroll
        for (int eighth = 0; eighth < 4; ++eighth)
            next[eighth] = fetched(data, first, chunks, bytes, chunk_bytes, eighth, step + 1);
        if (step < blocks) {
            int end = 1 + length - step * 64;  // where in this block 0x80 stands
#pragma unroll
            for (int i = 0; i < 16; ++i)
                if (end / 4 == i && end >= 0) w[i] |= 0x80u << (24 - end % 4 * 8);
            if (step == blocks - 1) {
                unsigned long long bits = (1ull + length) * 8;
                w[14] = (word)(bits >> 32);
                w[15] = (word)bits;
            }
            compress(state, w);
        }
    }
    if (chunk < chunks) {
#pragma unroll
        for (int i = 0; i < 8; ++i) hashes[(size_t)chunk * 8 + i] = __byte_perm(state[i], 0, 0x0123);
    }
}
