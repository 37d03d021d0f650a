"""What codes are good for: classes, neighbours, new galaxies, anomalies, a galaxy of one's own."""
