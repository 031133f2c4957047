"""Readers of pixels, one file a format family."""
