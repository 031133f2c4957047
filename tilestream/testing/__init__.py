"""Images made by code, for tests and for a demonstration without a download."""
