"""The storage codec: a pyramid of latents for each tile, decoded in whole numbers."""
