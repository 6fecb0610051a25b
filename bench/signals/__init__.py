"""What sampling many replicas costs."""
