"""The networks, their likelihoods and how they are trained; they take arrays and tensors, not image files."""
