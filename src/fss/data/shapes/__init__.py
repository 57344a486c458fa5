"""The drawn data set: written once from a seed, in the layout of VOC."""
