"""The colours of pages and plots."""

__all__ = ["COLORS", "DARK"]

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), told apart with any common colour blindness.
COLORS = {
    "ink": "#1f2328",
    "muted": "#59636e",
    "grid": "#e3e7eb",
    "surface": "#fffffe",  # not pure white, which the SVG writer leaves out where it is the default
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "sky": "#56b4e9",
    "orange": "#e69f00",
    "purple": "#b8588f",
}
# The same names on the page's dark background.
DARK = {
    "ink": "#e6edf3",
    "muted": "#9aa5b1",
    "grid": "#30363d",
    "surface": "#161b22",
    "blue": "#4aa3df",
    "vermillion": "#f0803c",
    "green": "#2fc296",
    "sky": "#8fd0f5",
    "orange": "#f0b849",
    "purple": "#dd8fbd",
}
