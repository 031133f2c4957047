"""Images as small networks that answer any position at any level: fitted to pixels, quantised, stored as bytes."""
