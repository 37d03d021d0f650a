"""Encoding of images, the file of codes, and the metrics in which codes are compared."""
