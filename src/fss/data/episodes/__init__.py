"""Episode sampling: class index, samplers, streams and episode lists."""
