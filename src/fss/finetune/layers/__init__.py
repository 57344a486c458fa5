"""Factored and scaled layers, and the functions with which strategies swap layers of a backbone."""
