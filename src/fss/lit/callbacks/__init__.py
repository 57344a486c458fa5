"""Callbacks: fine-tuning, results, images, cost."""
