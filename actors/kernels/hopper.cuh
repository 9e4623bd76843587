// Hopper's own instructions, sm_90a: bulk copies that tell a barrier in shared memory when they have arrived, and
// products by a group of four warps that read both operands from shared memory.
//
// Operands lie in rows of 128 bytes, one after the other, beginning at a multiple of 1,024 bytes; within each row the
// eight chunks of 16 bytes are exchanged by the row's number modulo 8 (chunk i lies at i xor row % 8). This is the layout
// that a matrix descriptor calls 128-byte swizzling, with 1,024 bytes from one group of eight rows to the next.

#pragma once

typedef unsigned long long Barrier;

__device__ __forceinline__ unsigned shared_address(const void *shared) {
    return (unsigned)__cvta_generic_to_shared(shared);
}

// One thread, before the others use the barrier: a phase is over after so many arrivals, and all bytes expected.
__device__ __forceinline__ void barrier_init(Barrier *barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// After the last of them: the copying engine sees the barriers.
__device__ __forceinline__ void barrier_init_done() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(Barrier *barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrive, and let the phase wait for so many bytes of copies.
__device__ __forceinline__ void barrier_expect(Barrier *barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

// Wait until the phase of this parity is over: phases are numbered from 0.
__device__ __forceinline__ void barrier_wait(Barrier *barrier, unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred over;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
        "@over bra.uni done;\n"
        "bra.uni again;\n"
        "done:\n"
        "}" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}

// One thread asks for a copy; addresses and size are multiples of 16.
__device__ __forceinline__ void copy_bulk(void *shared, const void *global, unsigned bytes, Barrier *barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(barrier))
        : "memory");
}

// Names rows in shared memory, from byte `first_byte` of each row on: a multiple of 32 below 128.
__device__ __forceinline__ unsigned long long descriptor(const void *shared, int first_byte) {
    unsigned long long start = (shared_address(shared) + first_byte & 0x3FFFF) >> 4;
    return start | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// Before the first product that uses registers which other instructions have written.
__device__ __forceinline__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// The products since the last call are a group.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Wait until all groups but the last `pending` are done.
template <int pending> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// After all products are done: what is read from the registers now is read after the wait.
__device__ __forceinline__ void wgmma_finish(int (&sum)[128]) {
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < 128; ++i) asm volatile("" : "+r"(sum[i])::"memory");
}

#define SUM_8(i)                                                                                            \
    "+r"(sum[i]), "+r"(sum[i + 1]), "+r"(sum[i + 2]), "+r"(sum[i + 3]), "+r"(sum[i + 4]), "+r"(sum[i + 5]), \
        "+r"(sum[i + 6]), "+r"(sum[i + 7])
#define SUM_32(i) SUM_8(i), SUM_8(i + 8), SUM_8(i + 16), SUM_8(i + 24)

// sum = a · bᵀ, or, `add`, sum += a · bᵀ, for 64 rows of a, 256 rows of b, and 32 bytes of each; int8, summed as int32 without saturation. In warp w
// of the four, the lane with g = lane / 4 and t = lane % 4 holds in sum[4 j + 2 h + i] row 16 w + g + 8 h, column
// 8 j + 2 t + i.
__device__ __forceinline__ void wgmma_64x256(int (&sum)[128], unsigned long long a, unsigned long long b,
                                             int add) {
    asm volatile(
        "{\n"
        ".reg .pred add;\n"
        "setp.ne.b32 add, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, add;\n"
        "}"
        : SUM_32(0), SUM_32(32), SUM_32(64), SUM_32(96)
        : "l"(a), "l"(b), "r"(add));
}
