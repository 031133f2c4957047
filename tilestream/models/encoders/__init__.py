"""Encoders of other libraries: how they are built, what they expect, and whose weights they take."""
