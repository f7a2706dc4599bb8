"""Results as one self-contained HTML page: no network, no script; light and dark, wide and narrow screens.

Charts are HTML rows with small SVGs in percent coordinates, so that text keeps its size on a phone.
"""
