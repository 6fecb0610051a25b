"""The systems ours is compared with, as their users would write them."""
