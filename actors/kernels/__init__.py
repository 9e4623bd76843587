"""CUDA sources, one file per computation; host code in `actors.backends.host`.

Kernels are declared ``extern "C" __global__ void``. The comment at a file's head says what it computes, its shape, why
it is exact, and what it costs; lines of this form in it are read by the build and by the tests:

- ``// arch: sm_75 sm_80 sm_90a``: what it is compiled for;
- ``// nvcc: -fmad=false``: further flags, here for floating point in a fixed order;
- ``// registers: 128``: no kernel of the file may use more;
- ``// no-spill``: nor may any keep registers in memory.

Instructions that C++ has no words for stand alone in a function of a ``.cuh`` file; the tests have another file of the
same name that does the same on the CPU.
"""
