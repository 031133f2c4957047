"""The engine: super-tiles through stages into sinks, resumable, in bounded memory."""
