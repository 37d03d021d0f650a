"""Image preparation, and perturbations that keep the class of a galaxy."""
