"""Read images and masks of any file: decoding, orientation, pairs, caches, derived files, process pools."""
