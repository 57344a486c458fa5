"""Level 1: data sets, episodes and transforms; no models. Import from the modules."""
