"""Torch operations over the kernels: registered, differentiable, and on the stream that torch works on."""
