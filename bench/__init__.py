"""One command per performance claim: ours beside a peer in the same run, the raw figures kept."""
