"""Other ways to run tuned layers: with little memory for the backward pass, merged, or component by component."""
