"""What several test folders share: a kubectl driver and waiting with progress."""
