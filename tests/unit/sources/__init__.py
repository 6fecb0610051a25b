"""Where models come from, against a stand-in of the hub and a real S3 server."""
