"""Many runs: the grid of a sweep, its progress, estimates of time, and what failed."""
