"""A federation of real machines: identities, a SuperLink, SuperNodes, and runs on them."""
