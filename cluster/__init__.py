"""Where work runs, never what."""
