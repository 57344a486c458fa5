"""Prepare data sets from the official archives: download, extraction, one module per data set."""
