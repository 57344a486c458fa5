"""Blocks that several heads share: pooling, prior mask, context modules, interpolation."""
