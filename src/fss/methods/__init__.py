"""Few-shot segmentation heads, one per file, and the model that joins a head to a backbone."""
