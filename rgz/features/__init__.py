"""From an image to its code, the file of codes, and how codes are compared."""
