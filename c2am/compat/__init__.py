"""The interfaces of other packages, computed by c2am."""
