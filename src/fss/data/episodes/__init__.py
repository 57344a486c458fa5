"""Which images make up an episode: index of classes, samplers, streams and lists."""
