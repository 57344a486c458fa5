"""Lightning callbacks: fine-tuning, feature cache, snapshots, results, previews and recordings."""
