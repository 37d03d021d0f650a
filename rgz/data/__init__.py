"""Images and what is known of each source: archives, cut-outs, the training set."""
