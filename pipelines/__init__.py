"""Whole jobs: the only place where the layers are wired together."""
