// Nearest centres, and the sums of their points by chunk: one iteration of Lloyd's algorithm but for its means.
//
// arch: sm_75 sm_80 sm_90a
// registers: 72
// no-spill
//
// Shape: `points` is count × dimensions, `centres` clusters × dimensions, both int16; at most 64 dimensions, at most 256
// clusters. `nearest`: a thread per point, 128 in a block, which hold their points in shared memory and go through the
// centres TILE at a time. `sum_chunks`: a thread per coordinate, 256 in a block; `counts` is chunks × clusters and
// `sums` chunks × clusters × dimensions, all zero before.
// Exact: a difference of two int16 is below 2^16 in magnitude, so its square fits 32 bits, and the sum of 64 of them 38.
// Only a smaller distance replaces an earlier centre, so of equally near ones the first is taken. A chunk has at most
// 65,535 points: its sums fit an int32. Integers are added, so the order of the atomics does not matter.
// Cost: count · clusters · dimensions subtractions and multiplications, with five loads from shared memory for four of
// them; the points are read twice.

#define DIMENSIONS 64
// Centres in shared memory, and how many of them are measured at once.
#define TILE 32
#define TOGETHER 4
// Two more, so that equal coordinates of neighbouring points lie in different banks.
#define STRIDE (DIMENSIONS + 2)

extern "C" __global__ void __launch_bounds__(128)
    nearest(const short *__restrict__ points, const short *__restrict__ centres, unsigned char *__restrict__ labels,
            int count, int dimensions, int clusters) {
    __shared__ short point[128][STRIDE];
    __shared__ short centre[TILE][DIMENSIONS];
    long long first = (long long)blockIdx.x * 128;
    int here = count - first < 128 ? (int)(count - first) : 128;
    for (int i = threadIdx.x; i < here * dimensions; i += 128)
        point[i / dimensions][i % dimensions] = points[first * dimensions + i];
    unsigned long long least = ~0ull;
    int label = 0;
    for (int from = 0; from < clusters; from += TILE) {
        int size = clusters - from < TILE ? clusters - from : TILE;
        __syncthreads();
        for (int i = threadIdx.x; i < size * dimensions; i += 128)
            centre[i / dimensions][i % dimensions] = centres[from * dimensions + i];
        __syncthreads();
        for (int c = 0; c < size && threadIdx.x < here; c += TOGETHER) {
            // Beyond the last centre lies whatever was there before; its distance is not looked at.
            unsigned long long distances[TOGETHER] = {};
            for (int j = 0; j < dimensions; ++j) {
                int coordinate = point[threadIdx.x][j];
#pragma unroll
                for (int o = 0; o < TOGETHER; ++o) {
                    unsigned difference = (unsigned)(coordinate - centre[c + o][j]);
                    distances[o] += difference * difference;
                }
            }
#pragma unroll
            for (int o = 0; o < TOGETHER; ++o)
                if (c + o < size && distances[o] < least) {
                    least = distances[o];
                    label = from + c + o;
                }
        }
    }
    if (threadIdx.x < here) labels[first + threadIdx.x] = (unsigned char)label;
}

extern "C" __global__ void __launch_bounds__(256)
    sum_chunks(const short *__restrict__ points, const unsigned char *__restrict__ labels, int *counts, int *sums,
               int count, int dimensions, int clusters, int chunk_points) {
    long long place = (long long)blockIdx.x * 256 + threadIdx.x;
    if (place >= (long long)count * dimensions) return;
    int index = (int)(place / dimensions), dimension = (int)(place % dimensions);
    int cell = index / chunk_points * clusters + labels[index];
    atomicAdd(&sums[(long long)cell * dimensions + dimension], (int)points[place]);
    if (dimension == 0) atomicAdd(&counts[cell], 1);
}
