// The part of CUDA's header of the same name that the kernels use.

#pragma once

struct __half {
    unsigned short bits;
};
typedef __half half;

static inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
static inline unsigned short __half_as_ushort(__half value) { return value.bits; }

// Exact: every half is a float.
static inline float __half2float(__half value) {
    unsigned sign = value.bits >> 15, exponent = value.bits >> 10 & 0x1F, fraction = value.bits & 0x3FF;
    float magnitude = exponent == 0    ? ldexpf(float(fraction), -24)
                      : exponent == 31 ? (fraction ? NAN : INFINITY)
                                       : ldexpf(float(fraction | 0x400), int(exponent) - 25);
    return sign ? -magnitude : magnitude;
}
