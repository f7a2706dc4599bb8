"""The HTTP interface: connections, middleware, routes, bodies and forms, the wire format; `v2`: the Open Inference Protocol."""
