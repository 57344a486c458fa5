"""Few-shot segmentation heads, one per file, and their base classes."""
