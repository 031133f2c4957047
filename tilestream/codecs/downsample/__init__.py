"""Learned downsampling: small images made so that a network restores the large one, and that look like its means."""
