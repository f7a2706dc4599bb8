"""Videos of `solo segment`: recognise, decode, segment, track, draw and encode. Only `signature` works without the extra `video`."""
