"""Data sets on disk: one reader per data set, folds, masks, manifests."""
