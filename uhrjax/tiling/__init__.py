"""Pure geometry on the host: windows of a scene and the views cut around them."""
