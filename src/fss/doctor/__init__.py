"""What this machine and these folders can run, and the commands that provide the rest."""
