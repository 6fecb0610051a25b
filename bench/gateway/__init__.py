"""The gateway beside nginx as a plain reverse proxy. Layer: tooling."""
