"""The few-shot model: backbone, head and companion, built from a configuration or loaded from a checkpoint."""
