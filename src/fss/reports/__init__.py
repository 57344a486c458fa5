"""Tables, HTML pages and preview grids made from the files of finished runs; never runs a model."""
