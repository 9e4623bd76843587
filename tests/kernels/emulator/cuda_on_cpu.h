// Lets a C++ compiler build CUDA kernels for the CPU, unchanged: what the language adds to C++, in C++.
//
// The threads of a block are fibers of one thread of the operating system; blocks run one after the other. A fiber runs
// until it waits (`__syncthreads`, a shuffle, a ballot) or ends, then the next one does. Each round goes through them in
// the order that the launch asks for, forward or backward: a kernel that lacks a barrier gives two different results.
// Shared memory is filled with rubbish before each block. A launch says so when threads wait for others that have ended
// or wait elsewhere, and when a thread touches memory that is not mapped.
//
// Nothing of a GPU's memory model is here beyond that: what this accepts may still race on a GPU within one round.

#pragma once

#include <csetjmp>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <cmath>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static __attribute__((section("shared_memory")))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __restrict__ __restrict

// ---- Vectors ----------------------------------------------------------------------------------------------------

#define VECTORS(T, name, size)                                                                                       \
    struct name##1 { T x; };                                                                                         \
    struct alignas(2 * size) name##2 { T x, y; };                                                                    \
    struct name##3 { T x, y, z; };                                                                                   \
    struct alignas(4 * size > 16 ? 16 : 4 * size) name##4 { T x, y, z, w; };                                         \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                        \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTORS(signed char, char, 1)
VECTORS(unsigned char, uchar, 1)
VECTORS(short, short, 2)
VECTORS(unsigned short, ushort, 2)
VECTORS(int, int, 4)
VECTORS(unsigned int, uint, 4)
VECTORS(long long, longlong, 8)
VECTORS(unsigned long long, ulonglong, 8)
VECTORS(float, float, 4)
VECTORS(double, double, 8)
#undef VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

// ---- Fibers -----------------------------------------------------------------------------------------------------

namespace emulator {

enum class Wait { none, block, warp, ended };

struct Fiber {
    ucontext_t context;
    jmp_buf resume;
    bool begun = false;
    char *stack = nullptr;
    unsigned thread = 0;
    Wait wait = Wait::none;
    // A warp's operation: who takes part, what this lane says, and where it wants to have what each lane has said.
    unsigned mask = 0;
    const void *said = nullptr;
    char *heard = nullptr;
    // What a barrier that votes counts.
    int vote = 0;
};

constexpr size_t stack_bytes = 128 << 10;
constexpr int ok = 0, deadlock = 1, fault = 2;

static std::vector<Fiber *> fibers, idle;  // of the block: by thread; with a stack and nothing to do
static Fiber *current;
static jmp_buf scheduler;
static void (*body)();
static std::vector<char> dynamic_shared_memory;
static sigjmp_buf faulted;
static int votes;

static inline void place(unsigned thread) {
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

static void fiber_main() {
    for (;;) {
        body();
        current->wait = Wait::ended;
        if (!_setjmp(current->resume)) _longjmp(scheduler, 1);
    }
}

// Run the fiber until it waits or ends. The first switch is by the context that it was made with, all others by jumps,
// which need no system call.
static __attribute__((noinline)) void run(Fiber *fiber) {
    current = fiber;
    place(fiber->thread);
    if (_setjmp(scheduler)) return;
    if (fiber->begun) _longjmp(fiber->resume, 1);
    fiber->begun = true;
    setcontext(&fiber->context);
    abort();
}

static __attribute__((noinline)) void pause() {
    if (!_setjmp(current->resume)) _longjmp(scheduler, 1);
}

static Fiber *fiber_for(unsigned thread) {
    Fiber *fiber;
    if (idle.empty()) {
        fiber = new Fiber;
        void *stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) abort();
        fiber->stack = static_cast<char *>(stack);
        getcontext(&fiber->context);
        fiber->context.uc_stack.ss_sp = stack;
        fiber->context.uc_stack.ss_size = stack_bytes;
        fiber->context.uc_link = nullptr;
        makecontext(&fiber->context, fiber_main, 0);
    } else {
        fiber = idle.back();
        idle.pop_back();
    }
    fiber->thread = thread;
    fiber->wait = Wait::none;
    return fiber;
}

static void wait_for_block() {
    current->wait = Wait::block;
    pause();
}

// Wait until all lanes of the mask have spoken, and learn what each said: `bytes` from each into `heard`, by lane.
static inline void exchange(unsigned mask, const void *said, size_t bytes, void *heard) {
    Fiber *self = current;
    self->said = said;
    self->heard = static_cast<char *>(heard);
    self->mask = mask;
    self->wait = Wait::warp;
    unsigned base = self->thread & ~31u, lanes = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
        Fiber *other = base + lane < fibers.size() ? fibers[base + lane] : nullptr;
        if ((mask >> lane & 1) && other && other->wait == Wait::warp && other->mask == mask) lanes |= 1u << lane;
    }
    if (lanes != mask) return pause();
    for (unsigned lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1)) continue;
        Fiber *other = fibers[base + lane];
        other->wait = Wait::none;
        for (unsigned from = 0; from < 32; ++from)
            if (mask >> from & 1) memcpy(other->heard + from * bytes, fibers[base + from]->said, bytes);
    }
}

extern "C" char __start_shared_memory[] __attribute__((weak));
extern "C" char __stop_shared_memory[] __attribute__((weak));

static int run_block(bool backward) {
    if (__start_shared_memory) memset(__start_shared_memory, 0xA5, __stop_shared_memory - __start_shared_memory);
    std::fill(dynamic_shared_memory.begin(), dynamic_shared_memory.end(), '\xA5');
    unsigned threads = blockDim.x * blockDim.y * blockDim.z, live = threads;
    fibers.assign(threads, nullptr);
    for (bool first = true; live; first = false) {
        bool moved = false;
        for (unsigned turn = 0; turn < threads; ++turn) {
            unsigned thread = backward ? threads - 1 - turn : turn;
            if (first) fibers[thread] = fiber_for(thread);
            Fiber *fiber = fibers[thread];
            if (!fiber || fiber->wait != Wait::none) continue;
            moved = true;
            run(fiber);
            if (fiber->wait == Wait::ended) {
                idle.push_back(fiber);
                fibers[thread] = nullptr;
                --live;
            }
        }
        if (moved) continue;
        votes = 0;
        for (Fiber *fiber : fibers)
            if (fiber && fiber->wait != Wait::block) return deadlock;
            else if (fiber) votes += fiber->vote;
        for (Fiber *fiber : fibers)
            if (fiber) fiber->wait = Wait::none;
    }
    return ok;
}

static void on_fault(int, siginfo_t *, void *) { siglongjmp(faulted, 1); }

// What a thread was doing stays undone: its fibers are given up with their stacks.
static int run_grid(const unsigned *geometry, size_t shared_bytes, bool backward) {
    gridDim = {geometry[0], geometry[1], geometry[2]};
    blockDim = {geometry[3], geometry[4], geometry[5]};
    dynamic_shared_memory.resize(shared_bytes + 1024);
    struct sigaction action = {}, before_segv, before_bus;
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &before_segv);
    sigaction(SIGBUS, &action, &before_bus);
    int outcome = ok;
    if (sigsetjmp(faulted, 1)) {
        outcome = fault;
    } else {
        size_t blocks = size_t(gridDim.x) * gridDim.y * gridDim.z;
        for (size_t turn = 0; turn < blocks && outcome == ok; ++turn) {
            size_t block = backward ? blocks - 1 - turn : turn;
            blockIdx = {unsigned(block % gridDim.x), unsigned(block / gridDim.x % gridDim.y),
                        unsigned(block / gridDim.x / gridDim.y)};
            outcome = run_block(backward);
        }
    }
    sigaction(SIGSEGV, &before_segv, nullptr);
    sigaction(SIGBUS, &before_bus, nullptr);
    return outcome;
}

template <class T> T *dynamic_shared() {
    auto address = reinterpret_cast<uintptr_t>(dynamic_shared_memory.data());
    return reinterpret_cast<T *>((address + 1023) / 1024 * 1024);
}

// A kernel's parameters, copied out of the launch, and the call.
template <class... P> struct Launch {
    static inline void (*kernel)(P...);
    static inline void **arguments;
    template <size_t... I> static void call(std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_cv_t<P> *>(arguments[I])...);
    }
    static void body() { call(std::index_sequence_for<P...>{}); }
};

// 0, or 1 + the index of the first argument of the wrong size, or -1 where their number is wrong.
template <class... P>
int mismatch(void (*)(P...), size_t count, const size_t *sizes) {
    if (count != sizeof...(P)) return -1;
    const size_t wanted[] = {sizeof(P)..., 0};
    for (size_t i = 0; i < count; ++i)
        if (sizes[i] != wanted[i]) return int(i) + 1;
    return 0;
}

template <class... P>
int launch(void (*kernel)(P...), void **arguments, const unsigned *geometry, size_t shared_bytes, bool backward) {
    Launch<P...>::kernel = kernel;
    Launch<P...>::arguments = arguments;
    body = Launch<P...>::body;
    return run_grid(geometry, shared_bytes, backward);
}

}  // namespace emulator

// Placed after the kernels, once for each.
#define EMULATED_KERNEL(name)                                                                                        \
    extern "C" int mismatch_##name(size_t count, const size_t *sizes) {                                              \
        return emulator::mismatch(name, count, sizes);                                                               \
    }                                                                                                                \
    extern "C" int launch_##name(void **arguments, const unsigned *geometry, size_t shared_bytes, int backward) {    \
        return emulator::launch(name, arguments, geometry, shared_bytes, backward);                                  \
    }

// Which thread stopped, after a fault.
extern "C" void emulator_position(unsigned *position) {
    position[0] = blockIdx.x, position[1] = blockIdx.y, position[2] = blockIdx.z;
    position[3] = threadIdx.x, position[4] = threadIdx.y, position[5] = threadIdx.z;
}

// ---- Barriers and warps -----------------------------------------------------------------------------------------

static inline void __syncthreads() { emulator::wait_for_block(); }
static inline int __syncthreads_count(int predicate) {
    emulator::current->vote = predicate != 0;
    emulator::wait_for_block();
    return emulator::votes;
}
static inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) != 0; }
static inline int __syncthreads_and(int predicate) { return __syncthreads_count(predicate == 0) == 0; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
    char nothing[32];
    emulator::exchange(mask, nothing, 0, nothing);
}

namespace emulator {
template <class To, class From> To bits_of(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline unsigned lane() { return current->thread & 31; }
template <class T> T heard_from(unsigned mask, T value, int source, bool inside) {
    T heard[32];
    exchange(mask, &value, sizeof(T), heard);
    return inside ? heard[source] : value;
}
}  // namespace emulator

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    int first = int(emulator::lane()) / width * width;
    return emulator::heard_from(mask, value, first + (source & (width - 1)), true);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int source = int(emulator::lane() + delta);
    return emulator::heard_from(mask, value, source, source < int(emulator::lane()) / width * width + width);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int source = int(emulator::lane()) - int(delta);
    return emulator::heard_from(mask, value, source, source >= int(emulator::lane()) / width * width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    int source = int(emulator::lane()) ^ lanes;
    return emulator::heard_from(mask, value, source, source < int(emulator::lane()) / width * width + width);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    bool said = predicate != 0, heard[32];
    emulator::exchange(mask, &said, sizeof said, heard);
    unsigned ballot = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
        if ((mask >> lane & 1) && heard[lane]) ballot |= 1u << lane;
    return ballot;
}
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
static inline unsigned __match_any_sync(unsigned mask, unsigned value) {
    unsigned heard[32];
    emulator::exchange(mask, &value, sizeof value, heard);
    unsigned same = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
        if ((mask >> lane & 1) && heard[lane] == value) same |= 1u << lane;
    return same;
}
static inline unsigned __activemask() { return 0xFFFFFFFFu; }

// ---- Atomics: nothing runs between the read and the write -------------------------------------------------------

template <class T> using Same = std::common_type_t<T>;
#define ATOMIC(name, result)                                                                                         \
    template <class T> T name(T *address, Same<T> value) {                                                           \
        static_assert(std::is_integral_v<T> && sizeof(T) >= 4, "floats are never summed in an order of chance");     \
        T before = *address;                                                                                         \
        *address = result;                                                                                           \
        return before;                                                                                               \
    }
ATOMIC(atomicAdd, T(std::make_unsigned_t<T>(before) + std::make_unsigned_t<T>(value)))
ATOMIC(atomicSub, T(std::make_unsigned_t<T>(before) - std::make_unsigned_t<T>(value)))
ATOMIC(atomicMin, before < value ? before : value)
ATOMIC(atomicMax, before > value ? before : value)
ATOMIC(atomicAnd, before & value)
ATOMIC(atomicOr, before | value)
ATOMIC(atomicXor, before ^ value)
ATOMIC(atomicExch, value)
#undef ATOMIC
template <class T> T atomicCAS(T *address, Same<T> compare, Same<T> value) {
    T before = *address;
    if (before == compare) *address = value;
    return before;
}

// ---- Integers ---------------------------------------------------------------------------------------------------

static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; ++i) c = int(unsigned(c) + unsigned(int8_t(a >> 8 * i) * int8_t(b >> 8 * i)));
    return c;
}
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; ++i) c += unsigned(uint8_t(a >> 8 * i)) * uint8_t(b >> 8 * i);
    return c;
}
static inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
static inline long long __mul64hi(long long a, long long b) { return (long long)(((__int128)a * b) >> 64); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline int __mul24(int a, int b) { return int(unsigned((a << 8) >> 8) * unsigned((b << 8) >> 8)); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1) << (31 - i);
    return reversed;
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    uint64_t bytes = uint64_t(y) << 32 | x;
    unsigned permuted = 0;
    for (int i = 0; i < 4; ++i) {
        unsigned choice = selector >> 4 * i & 0xF;
        unsigned byte = unsigned(bytes >> 8 * (choice & 7)) & 0xFF;
        if (choice & 8) byte = byte & 0x80 ? 0xFF : 0;
        permuted |= byte << 8 * i;
    }
    return permuted;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((uint64_t(high) << 32 | low) << (shift & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}
template <class T> T __ldg(const T *address) { return *address; }
template <class A, class B> std::common_type_t<A, B> min(A a, B b) {
    std::common_type_t<A, B> x = a, y = b;
    return y < x ? y : x;
}
template <class A, class B> std::common_type_t<A, B> max(A a, B b) {
    std::common_type_t<A, B> x = a, y = b;
    return x < y ? y : x;
}

// ---- Floats: rounded to nearest, never fused but by name --------------------------------------------------------

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double a) { return sqrt(a); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline int __float_as_int(float a) { return emulator::bits_of<int>(a); }
static inline unsigned __float_as_uint(float a) { return emulator::bits_of<unsigned>(a); }
static inline float __int_as_float(int a) { return emulator::bits_of<float>(a); }
static inline float __uint_as_float(unsigned a) { return emulator::bits_of<float>(a); }
static inline int __float2int_rn(float a) { return int(nearbyintf(a)); }
static inline int __float2int_rz(float a) { return int(a); }
static inline int __float2int_rd(float a) { return int(floorf(a)); }
static inline float __int2float_rn(int a) { return float(a); }
static inline float __uint2float_rn(unsigned a) { return float(a); }
