"""What every kernel must compute, bit for bit, in NumPy: one module per computation."""
