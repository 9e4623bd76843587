// Stands for actors/kernels/mma.cuh: the same products and sums, from the fragments of all lanes.

#pragma once

#include "cuda_fp16.h"

namespace emulator {

struct Fragments {
    unsigned a[4], b[2];
};

// Four bytes of a row of a, or of a column of b: which lane has them, and in which word.
static inline unsigned word_of_a(const Fragments *lanes, int row, int word) {
    return lanes[row % 8 * 4 + word % 4].a[word / 4 * 2 + row / 8];
}
static inline unsigned word_of_b(const Fragments *lanes, int column, int word) {
    return lanes[column * 4 + word % 4].b[word / 4];
}

static inline int add_products(int sum, unsigned a, unsigned b) { return __dp4a(int(a), int(b), sum); }
static inline float add_products(float sum, unsigned a, unsigned b) {
    for (int shift = 0; shift < 32; shift += 16) {
        float left = __half2float(__ushort_as_half((unsigned short)(a >> shift)));
        float right = __half2float(__ushort_as_half((unsigned short)(b >> shift)));
        sum += left * right;
    }
    return sum;
}

template <class Sum> void mma(Sum (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    Fragments mine, lanes[32];
    memcpy(mine.a, a, sizeof a);
    memcpy(mine.b, b, sizeof b);
    exchange(0xFFFFFFFFu, &mine, sizeof mine, lanes);
    for (int i = 0; i < 4; ++i) {
        int row = int(lane()) / 4 + i / 2 * 8, column = int(lane()) % 4 * 2 + i % 2;
        for (int word = 0; word < 8; ++word)
            sum[i] = add_products(sum[i], word_of_a(lanes, row, word), word_of_b(lanes, column, word));
    }
}

}  // namespace emulator

static inline void mma(int (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { emulator::mma(sum, a, b); }
static inline void mma(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { emulator::mma(sum, a, b); }
