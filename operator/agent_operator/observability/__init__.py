"""Names. Layer: observability, imported by shell, controller and __main__, never by core or api.

The one idea: every metric, log field, event reason and probe exists in exactly one place.
"""
