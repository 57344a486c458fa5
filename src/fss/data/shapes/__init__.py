"""The synthetic shapes data set, drawn once from a seed and stored in the VOC layout."""
