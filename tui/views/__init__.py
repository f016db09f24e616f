"""Views on the keys 1 to 6, each of which fills the screen."""
