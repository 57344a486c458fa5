"""From official archives to the folders that a reader reads: downloads, extraction, one file per data set."""
