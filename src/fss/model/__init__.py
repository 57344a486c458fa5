"""The model that users call: backbone, head and companion joined, built from a configuration or a checkpoint."""
