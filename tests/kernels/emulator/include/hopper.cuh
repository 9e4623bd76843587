// Stands for actors/kernels/hopper.cuh. What goes on in the background happens as badly as it may: a copy overwrites at
// once, a product reads its operands only when somebody waits for it.

#pragma once

#include <deque>
#include <map>

typedef unsigned long long Barrier;

namespace emulator {

struct Phase {
    uint16_t arrivals, pending;
    int bytes : 24;
    unsigned number : 8;
};
static_assert(sizeof(Phase) == sizeof(Barrier));

static inline Phase &phase(Barrier *barrier) { return *reinterpret_cast<Phase *>(barrier); }
static inline void finish_phase(Phase &phase) {
    if (phase.pending || phase.bytes) return;
    phase.pending = phase.arrivals;
    phase.number ^= 1;
}

struct Product {
    int *sum;
    uintptr_t a, b;
    bool add;
};
struct Products {
    std::vector<Product> open;
    std::deque<std::vector<Product>> groups;
};
static std::map<Fiber *, Products> products;

// Four bytes of a row, from an address that goes on as if rows were whole: the engine exchanges bits 4 to 6 of it.
static inline int word_at(uintptr_t descriptor, int row, int byte) {
    uintptr_t address = descriptor + row / 8 * 1024 + row % 8 * 128 + byte;
    int word;
    memcpy(&word, reinterpret_cast<const void *>(address ^ (address >> 7 & 7) << 4), 4);
    return word;
}

static inline void multiply(const Product &product) {
    unsigned thread = threadIdx.x % 128, lane = thread % 32;
    for (int i = 0; i < 128; ++i) {
        int row = thread / 32 * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        int sum = product.add ? product.sum[i] : 0;
        for (int byte = 0; byte < 32; byte += 4)
            sum = __dp4a(word_at(product.a, row, byte), word_at(product.b, column, byte), sum);
        product.sum[i] = sum;
    }
}

}  // namespace emulator

static inline void barrier_init(Barrier *barrier, unsigned arrivals) {
    emulator::phase(barrier) = {uint16_t(arrivals), uint16_t(arrivals), 0, 0};
}
static inline void barrier_init_done() {}
static inline void barrier_arrive(Barrier *barrier) {
    emulator::Phase &phase = emulator::phase(barrier);
    if (!phase.pending) abort();
    --phase.pending;
    emulator::finish_phase(phase);
}
static inline void barrier_expect(Barrier *barrier, unsigned bytes) {
    emulator::phase(barrier).bytes += int(bytes);
    barrier_arrive(barrier);
}
static inline void barrier_wait(Barrier *barrier, unsigned parity) {
    for (int tries = 0; emulator::phase(barrier).number == parity; ++tries) {
        if (tries == 100000) emulator::current->wait = emulator::Wait::warp;  // nobody comes
        emulator::pause();
    }
}
static inline void copy_bulk(void *shared, const void *global, unsigned bytes, Barrier *barrier) {
    if (uintptr_t(shared) % 16 || uintptr_t(global) % 16 || bytes % 16) abort();
    memcpy(shared, global, bytes);
    emulator::Phase &phase = emulator::phase(barrier);
    phase.bytes -= int(bytes);
    emulator::finish_phase(phase);
}

static inline unsigned long long descriptor(const void *shared, int first_byte) {
    if (uintptr_t(shared) % 1024) abort();
    return uintptr_t(shared) + first_byte;
}
static inline void wgmma_begin() {}
static inline void wgmma_64x256(int (&sum)[128], unsigned long long a, unsigned long long b, int add) {
    emulator::products[emulator::current].open.push_back({sum, a, b, add != 0});
}
static inline void wgmma_commit() {
    auto &mine = emulator::products[emulator::current];
    mine.groups.push_back(std::move(mine.open));
    mine.open.clear();
}
template <int pending> void wgmma_wait() {
    auto &groups = emulator::products[emulator::current].groups;
    for (; groups.size() > pending; groups.pop_front())
        for (const emulator::Product &product : groups.front()) emulator::multiply(product);
}
static inline void wgmma_finish(int (&)[128]) { wgmma_wait<0>(); }
