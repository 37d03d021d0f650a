"""From a field of the sky to what the network sees, and what may be done to a galaxy without making another of it."""
