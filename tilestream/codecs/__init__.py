"""Bytes to pixels or features, and back."""
