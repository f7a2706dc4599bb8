"""The server on Ray Serve: the whole application in each replica, on one node or many. docs/ray.md is the guide.

    solo serve --ray                   command ─┐
    serve deploy, RayService: builder ──────────┴─► application: cores, queues, autoscaling ─► replica: create_app, once it is warm
    caller ─► Ray's proxy, with `proxy` around it ─► replica ─► RequestMiddleware ─► ...
    `metrics`: ours, every few seconds, in Ray's endpoint

Ray is imported here only.
"""
