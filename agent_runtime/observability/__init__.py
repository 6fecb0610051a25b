"""Names of metrics and the shape of log lines. Layer: beside everything; imports no other layer."""
