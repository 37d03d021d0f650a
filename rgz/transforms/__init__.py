"""Image preparation, and label-preserving perturbations."""
