"""Stages that describe tiles, regions and slides."""
