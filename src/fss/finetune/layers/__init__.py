"""What a strategy swaps into a backbone, and how: factored, scaled and low-rank layers, and module surgery."""
