"""Streams gigapixel images through kernels and models in bounded memory."""

__version__ = "0.1.0"
