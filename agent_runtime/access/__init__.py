"""Who may call and how much. Layer: request path, between the server and the API."""
