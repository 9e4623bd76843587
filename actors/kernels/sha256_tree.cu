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

typedef unsigned int word;

__constant__ word ROUND_CONSTANTS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

__device__ __forceinline__ word rotated(word x, int bits) { return x >> bits | x << (32 - bits); }

// One block of 64 bytes, `w`, into the state; `w` is overwritten by its schedule.
__device__ __forceinline__ void compress(word (&state)[8], word (&w)[16]) {
    word a = state[0], b = state[1], c = state[2], d = state[3];
    word e = state[4], f = state[5], g = state[6], h = state[7];
#pragma unroll
    for (int round = 0; round < 64; ++round) {
        if (round >= 16) {
            word early = w[(round + 1) % 16], late = w[(round + 14) % 16];
            w[round % 16] += (rotated(early, 7) ^ rotated(early, 18) ^ early >> 3) + w[(round + 9) % 16] +
                             (rotated(late, 17) ^ rotated(late, 19) ^ late >> 10);
        }
        word first = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + (g ^ (e & (f ^ g))) +
                     ROUND_CONSTANTS[round] + w[round % 16];
        word second = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) | (c & (a | b)));
        h = g, g = f, f = e, e = d + first;
        d = c, c = b, b = a, a = first + second;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

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
