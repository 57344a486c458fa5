"""Level 3: tables and pictures made from the files of finished runs; never runs a model. Import from the modules."""
