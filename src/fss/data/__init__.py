"""Data loading: data modules, datasets, transforms and their options."""
