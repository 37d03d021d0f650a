"""Images and tables of sources: archives, cut-outs, the training set."""
