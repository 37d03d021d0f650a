"""Applications of the codes: classification, similarity search, generation, anomalies, your own galaxy."""
