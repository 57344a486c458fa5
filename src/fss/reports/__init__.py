"""Level 3: tables and images made from the files of finished runs; never runs a model. Import from the modules."""
