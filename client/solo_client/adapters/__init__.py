"""Results as the objects of other people's tools: one module a tool, which imports its tool when it is used.

    Result ─► supervision: Detections        CVAT ─► cvat: create(...) ─► spec, detect ─► a server or a local model
           └► fiftyone: Detections

docs/tools.md has an example of each.
"""
