"""Caches of a process as a stack: device, decoded, compressed, disk, peers; each with a budget in bytes."""

from tilestream.cache.blocks import BlockCache, BlockKey, RecentBlocks, block_cache, forget_blocks

__all__ = ["BlockCache", "BlockKey", "RecentBlocks", "block_cache", "forget_blocks"]
