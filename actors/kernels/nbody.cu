// One step of bodies that attract each other, in float32 in a fixed order.
//
// arch: sm_75 sm_80 sm_90a
// nvcc: -fmad=false
// registers: 48
// no-spill
//
// Shape: a thread per body, blocks of THREADS. `state` and `next` have six floats per body, position and velocity, and
// are not the same buffer; `half` is 0.5 dt. The formulas are at the head of actors/backends/reference/nbody.py.
// Exact: every operation is named (__fmul_rn, __fadd_rn), so that none is fused into another, and each thread adds the
// forces of all bodies in their order, over whatever tiles they come in. The reciprocal square root is three steps of
// Newton's method from an integer estimate: no instruction whose result a manufacturer may choose. No value overflows,
// and small ones are not flushed to zero (no -ftz).
// Cost: 32 operations per pair of bodies; four floats are read from shared memory for each, by all threads at once, and
// each block reads the whole state once.

#define THREADS 128

__device__ __forceinline__ float reciprocal_square_root(float value) {
    float estimate = __int_as_float(0x5F3759DF - (int)(__float_as_uint(value) >> 1));
    float half = __fmul_rn(0.5f, value);
#pragma unroll
    for (int step = 0; step < 3; ++step)
        estimate = __fmul_rn(estimate, __fsub_rn(1.5f, __fmul_rn(half, __fmul_rn(estimate, estimate))));
    return estimate;
}

__device__ __forceinline__ float drifted(const float *state, int body, int axis, float half) {
    return __fadd_rn(state[6 * body + axis], __fmul_rn(state[6 * body + 3 + axis], half));
}

extern "C" __global__ void __launch_bounds__(THREADS)
    leapfrog(const float *__restrict__ state, const float *__restrict__ masses, float *__restrict__ next, int bodies,
             float dt, float half, float softening) {
    __shared__ float4 tile[THREADS];
    int body = blockIdx.x * THREADS + threadIdx.x;
    // Threads beyond the last body help to load the tiles, and compute what nobody keeps.
    int own = body < bodies ? body : bodies - 1;
    float x = drifted(state, own, 0, half), y = drifted(state, own, 1, half), z = drifted(state, own, 2, half);
    float ax = 0.0f, ay = 0.0f, az = 0.0f;
    for (int first = 0; first < bodies; first += THREADS) {
        int other = first + threadIdx.x;
        __syncthreads();
        if (other < bodies)
            tile[threadIdx.x] = make_float4(drifted(state, other, 0, half), drifted(state, other, 1, half),
                                            drifted(state, other, 2, half), masses[other]);
        __syncthreads();
        int size = bodies - first < THREADS ? bodies - first : THREADS;
#pragma unroll 4
        for (int place = 0; place < size; ++place) {
            float4 pulls = tile[place];
            float dx = __fsub_rn(pulls.x, x), dy = __fsub_rn(pulls.y, y), dz = __fsub_rn(pulls.z, z);
            float squares = __fadd_rn(__fadd_rn(__fmul_rn(dx, dx), __fmul_rn(dy, dy)), __fmul_rn(dz, dz));
            float root = reciprocal_square_root(__fadd_rn(squares, softening));
            float scale = __fmul_rn(pulls.w, __fmul_rn(__fmul_rn(root, root), root));
            ax = __fadd_rn(ax, __fmul_rn(dx, scale));
            ay = __fadd_rn(ay, __fmul_rn(dy, scale));
            az = __fadd_rn(az, __fmul_rn(dz, scale));
        }
    }
    if (body >= bodies) return;
    float vx = __fadd_rn(state[6 * body + 3], __fmul_rn(ax, dt));
    float vy = __fadd_rn(state[6 * body + 4], __fmul_rn(ay, dt));
    float vz = __fadd_rn(state[6 * body + 5], __fmul_rn(az, dt));
    next[6 * body] = __fadd_rn(x, __fmul_rn(vx, half));
    next[6 * body + 1] = __fadd_rn(y, __fmul_rn(vy, half));
    next[6 * body + 2] = __fadd_rn(z, __fmul_rn(vz, half));
    next[6 * body + 3] = vx;
    next[6 * body + 4] = vy;
    next[6 * body + 5] = vz;
}
