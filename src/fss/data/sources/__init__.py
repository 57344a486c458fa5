"""Data sets as files on disk: one reader per data set, folds, masks, manifests."""
