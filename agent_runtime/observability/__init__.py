"""Names of metrics, the shape of log lines, spans. Layer: beside everything; imports pure modules only."""
