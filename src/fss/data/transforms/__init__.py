"""Transforms of the releases' protocols: NAME.py holds the function ``transform`` of ``protocol.query=NAME``."""
