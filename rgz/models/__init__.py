"""The networks, their likelihoods and how they are trained; they know arrays and tensors, no files of images."""
