"""CUDA sources, one file per computation; host code in `actors.backends`."""
