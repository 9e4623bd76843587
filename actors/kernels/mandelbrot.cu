// How long the orbits of points stay within distance 2 of the origin, in fixed point with 56 binary places.
//
// arch: sm_75 sm_80 sm_90a
// registers: 48
// no-spill
//
// Shape: `counts` is rows × width; the point of row i and column j is (re[j], im[first + i]). A block of 32 × 4 threads
// has one point per thread; grid is (width / 32, rows / 4), rounded up.
// Exact: coordinates are below 4 in magnitude, and the orbit goes on only from within distance 2, so x and y stay below
// 8, 2^59: the upper part of each fits an int32, its square is below 2^62 and the sum of two squares below 2^63. A
// square is floor(v^2 / 2^56): with v = h 2^28 + l, v^2 / 2^56 = h^2 + (h l + l^2 / 2^29) / 2^27. An orbit that comes
// back to exactly where it was never leaves: it need not be followed any further.
// Cost: three squares of three 32-bit products each, about 40 integer instructions in all, per iteration; the threads of
// a warp wait for the longest of their orbits.

#define HALF 28
#define FOUR (4ll << 56)

__device__ __forceinline__ long long square(long long value) {
    int high = (int)(value >> HALF);
    int low = (int)value & ((1 << HALF) - 1);
    long long lowest = (long long)low * low >> (HALF + 1);
    return (long long)high * high + (((long long)high * low + lowest) >> (HALF - 1));
}

__device__ __forceinline__ int count_of(long long re, long long im, int most) {
    long long x = 0, y = 0, seen_x = 0, seen_y = 0;
    int look_again = 16;
    for (int n = 0; n < most; ++n) {
        long long xx = square(x), yy = square(y);
        if (xx + yy > FOUR) return n;
        long long cross = square(x + y) - xx - yy;
        x = xx - yy + re;
        y = cross + im;
        if (x == seen_x && y == seen_y) return most;
        if (n == look_again) {
            seen_x = x;
            seen_y = y;
            look_again *= 2;
        }
    }
    return most;
}

extern "C" __global__ void __launch_bounds__(128)
    escape_counts(const long long *__restrict__ re, const long long *__restrict__ im,
                  unsigned short *__restrict__ counts, int width, int rows, int first, int most) {
    int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 4 + threadIdx.y;
    if (column >= width || row >= rows) return;
    counts[(long long)row * width + column] = (unsigned short)count_of(re[column], im[first + row], most);
}
