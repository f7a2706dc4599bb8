"""The results of segmentation, for the server and for its clients: records, RLE, drawing and file formats.

`types` and `coco` need the standard library only, masks as arrays need numpy, and drawing needs Pillow.
"""
