"""Callbacks: fine-tuning, results, pictures, cost."""
