"""What this machine and these folders can run."""
