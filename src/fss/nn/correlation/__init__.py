"""Four-dimensional correlation of query and support positions, and the convolutions that compress it."""
