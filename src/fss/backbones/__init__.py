"""Backbones whose five stages are called one by one, and their pretrained weights."""
