"""Tables, pages and image grids made from the files of finished runs; never runs a model."""
