"""Rows of the checklist that only a real API server can prove. Layer: tests."""
