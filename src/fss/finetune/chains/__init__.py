"""Memory-lean forms of tuned layers: what is kept for the backward pass, merged copies, components."""
