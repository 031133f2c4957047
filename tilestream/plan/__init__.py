"""Which tiles of an image are read, and at which resolution."""
