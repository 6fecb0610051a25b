"""The agent runtime: pure parts alone, the rest as a real process with a real model."""
