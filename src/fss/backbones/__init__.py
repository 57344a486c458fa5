"""Backbones whose five stages are called one by one."""
