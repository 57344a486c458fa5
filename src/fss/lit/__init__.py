"""Lightning modules and callbacks around heads, strategies and metrics."""
