"""Blocks shared by several heads: pooling, prior mask, prototypes, interpolation."""
