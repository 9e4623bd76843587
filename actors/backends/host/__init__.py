"""Host code of the GPU: for each computation, which kernels to launch on which buffers."""
