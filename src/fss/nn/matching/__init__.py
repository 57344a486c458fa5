"""Matching of query and support tokens at several resolutions (HDMNet)."""
