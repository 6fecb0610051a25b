"""The example model is really trained, and its answers come from its dataset."""
