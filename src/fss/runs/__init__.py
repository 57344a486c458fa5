"""One run from start to result: train, test, resume, signals, claims, provenance."""
