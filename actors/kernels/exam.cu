// What an exam needs beside the multiplication: rows of A made from their seed, and the tree over hashed rows of C.
//
// arch: sm_61 sm_75 sm_80 sm_90a
// registers: 96
// no-spill
//
// Shape of seeded_rows: a thread makes 16 elements, one counter of Philox4x32-10; a block has 256 threads, the grid is
// (rows, chunks / 256). Rows begin at `first`; they lie as pack.cu lays them: `length` bytes each, a multiple of 128,
// or, `tiled`, in pieces of 128 rows × 128 bytes with the chunks of 16 bytes exchanged within a row. `inner` is a
// multiple of 16; beyond it nothing is written, the buffer is all zeros before.
// Exact: 32-bit integers modulo 2^32, as Salmon et al. (SC 2011) define them.
// Cost: ten rounds of two wide multiplications for 16 bytes; one store of 16 bytes.
//
// Shape of merkle_level: a thread makes one node, SHA-256(0x01 ‖ left ‖ right), of two of the `count` hashes below; an
// odd last one moves up unchanged (RFC 9162). Blocks of 64 threads. Hashes are 32 bytes.
// Exact: as above.
// Cost: two compressions per node, as many nodes in all as there are leaves.

#include "sha256.cuh"

__device__ __forceinline__ uint4 philox(uint4 counter, word k0, word k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        word high0 = __umulhi(counter.x, 0xD2511F53u), low0 = counter.x * 0xD2511F53u;
        word high1 = __umulhi(counter.z, 0xCD9E8D57u), low1 = counter.z * 0xCD9E8D57u;
        counter = make_uint4(high1 ^ counter.y ^ k0, low1, high0 ^ counter.w ^ k1, low0);
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return counter;
}

extern "C" __global__ void __launch_bounds__(256)
    seeded_rows(uint4 *packed, word k0, word k1, word s0, word s1, word first, int inner, int length, int tiled) {
    int chunk = blockIdx.y * 256 + threadIdx.x, row = blockIdx.x;
    if (chunk >= inner / 16) return;
    uint4 elements = philox(make_uint4(chunk, first + row, s0, s1), k0, k1);
    size_t place = (size_t)row * (length / 16) + chunk;
    if (tiled) {
        size_t piece = (size_t)(row / 128) * (length / 128) + chunk / 8;
        place = piece * 1024 + row % 128 * 8 + (chunk % 8 ^ row % 8);
    }
    packed[place] = elements;
}

extern "C" __global__ void __launch_bounds__(64) merkle_level(const word *__restrict__ below, word *above, int count) {
    int node = blockIdx.x * 64 + threadIdx.x;
    if (node >= (count + 1) / 2) return;
    const word *children = below + (size_t)node * 16;
    word *to = above + (size_t)node * 8;
    if (2 * node + 1 == count) {
        for (int i = 0; i < 8; ++i) to[i] = children[i];
        return;
    }
    word state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    // The byte before the hashes shifts them by one: a message word holds the last byte of the word before.
    word w[16], before = 0x01000000u;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        word now = children[i];
        w[i] = __byte_perm(before, now, 0x3456);
        before = now;
    }
    compress(state, w);
    // The last byte, 0x80, zeros, and the length of 65 bytes in bits.
#pragma unroll
    for (int i = 0; i < 16; ++i) w[i] = 0;
    w[0] = (before & 0xFF000000u) | 0x00800000u;
    w[15] = 65 * 8;
    compress(state, w);
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i] = __byte_perm(state[i], 0, 0x0123);
}
