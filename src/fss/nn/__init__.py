"""Blocks that several heads share: pooling, prior mask, prototypes, interpolation."""
