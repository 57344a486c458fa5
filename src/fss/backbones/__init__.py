"""Backbones split into five separately callable stages, and their pretrained weights."""
