"""Pixel operations on CPU and CUDA; they know arrays and nothing else."""
