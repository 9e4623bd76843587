// Sums of payoffs over chunks of random paths of a price, in 64-bit integers.
//
// arch: sm_75 sm_80 sm_90a
// registers: 64
// no-spill
//
// Shape: a block of THREADS per chunk of `chunk_paths` paths, the first of which is `first_path` + block · chunk_paths;
// a thread takes every THREADS-th path of the chunk, below `paths`. `deviates` has 4,097 entries, `coarse` and `fine`
// have 256 each; `sums` has four places per block. What they hold is at the head of
// actors/backends/reference/option.py, with every formula that is here.
// Exact: integers only. |drift| · steps < 2^44 and diffusion · |Z| < 2^63 for all sums Z of deviates; M < 2^32, spot <
// 2^37: (spot >> 20) · M < 2^49; prices < 2^49, so that 4,096 of them sum to less than 2^61, and so do 4,096 payoffs;
// h < 2^24 and l < 2^25, so that 4,096 of h·h, h·l and l·l sum to less than 2^62. Sums of integers have no order.
// Cost: ten rounds of Philox for four steps, two loads from a table that the first-level cache holds per step, and, per
// price, two loads and six 64-bit products. No memory traffic to speak of: the arithmetic is all.

typedef unsigned int word;
typedef unsigned long long dword;

#define THREADS 128
#define LEAST_LOG (-(1ll << 37))
#define GREATEST_LOG ((12ll << 32) - 1)

__device__ __forceinline__ uint4 philox(uint4 counter, word k0, word k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        word high_0 = __umulhi(0xD2511F53u, counter.x), low_0 = 0xD2511F53u * counter.x;
        word high_1 = __umulhi(0xCD9E8D57u, counter.z), low_1 = 0xCD9E8D57u * counter.z;
        counter = make_uint4(high_1 ^ counter.y ^ k0, low_1, high_0 ^ counter.w ^ k1, low_0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return counter;
}

__device__ __forceinline__ long long deviate_of(word uniform, const int *deviates) {
    word odd = uniform << 1 | 1;
    int leading = __clz(odd);
    word normalised = odd << leading;
    int index = 128 * (31 - leading) + (normalised >> 24 & 127);
    long long upper = deviates[index], lower = deviates[index + 1];
    long long magnitude = upper - ((upper - lower) * (normalised & 0xFFFFFF) >> 24);
    return uniform >> 31 ? -magnitude : magnitude;
}

__device__ __forceinline__ long long price_of(long long deviates, int steps, long long spot, long long drift,
                                              long long diffusion, const word *coarse, const word *fine) {
    long long log = (drift * steps >> 8) + (diffusion * deviates >> 20);
    log = log < LEAST_LOG ? LEAST_LOG : log > GREATEST_LOG ? GREATEST_LOG : log;
    word fraction = (word)log;
    dword power = (dword)coarse[fraction >> 24] * fine[fraction >> 16 & 255] >> 31;
    power += power * ((dword)(fraction & 0xFFFF) * 45426) >> 48;
    dword scaled = (dword)(spot >> 20) * power + ((dword)(spot & 0xFFFFF) * power >> 20);
    return (long long)(scaled >> (int)(11 - (log >> 32)));
}

extern "C" __global__ void __launch_bounds__(THREADS)
    payoff_sums(const int *__restrict__ deviates, const word *__restrict__ coarse, const word *__restrict__ fine,
                dword *sums, long long spot, long long strike, long long drift, long long diffusion, int steps, int asian,
                int put, word first_path, word paths, word chunk_paths, word k0, word k1, word s0, word s1) {
    __shared__ dword shared[4][THREADS];
    word beginning = first_path + blockIdx.x * chunk_paths;
    word end = paths - beginning < chunk_paths ? paths : beginning + chunk_paths;
    dword payoffs = 0, high_squares = 0, products = 0, low_squares = 0;
    for (word path = beginning + threadIdx.x; path < end; path += THREADS) {
        long long total = 0;
        dword price_sum = 0;
        for (int block = 0; 4 * block < steps; ++block) {
            uint4 random = philox(make_uint4(block, path, s0, s1), k0, k1);
            word words[4] = {random.x, random.y, random.z, random.w};
#pragma unroll
            for (int lane = 0; lane < 4; ++lane) {
                int step = 4 * block + lane + 1;
                if (step > steps) break;
                total += deviate_of(words[lane], deviates);
                if (asian) price_sum += price_of(total, step, spot, drift, diffusion, coarse, fine);
            }
        }
        long long price = asian ? (long long)(price_sum / (dword)steps)
                                : price_of(total, steps, spot, drift, diffusion, coarse, fine);
        long long gain = put ? strike - price : price - strike;
        dword payoff = gain > 0 ? gain : 0, high = payoff >> 25, low = payoff & 0x1FFFFFF;
        payoffs += payoff;
        high_squares += high * high;
        products += high * low;
        low_squares += low * low;
    }
    shared[0][threadIdx.x] = payoffs;
    shared[1][threadIdx.x] = high_squares;
    shared[2][threadIdx.x] = products;
    shared[3][threadIdx.x] = low_squares;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            for (int column = 0; column < 4; ++column) shared[column][threadIdx.x] += shared[column][threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        for (int column = 0; column < 4; ++column) sums[4 * blockIdx.x + column] = shared[column][0];
}
