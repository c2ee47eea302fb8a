"""Two views of a cloud against each other, one of them by a net that follows: STRL."""
