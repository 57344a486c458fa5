"""Data sets on disk: one reader per data set, folds, image lists, manifests."""
