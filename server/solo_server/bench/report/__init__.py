"""Results as one HTML page that needs nothing else: no network, no script, light and dark, broad and narrow.

Charts are rows of HTML with small SVGs whose coordinates are percentages, so that text keeps its size on a phone.
"""
