"""Videos of `solo segment`: recognise, decode, segment, track, draw, encode. All but `signature` needs the extra `video`."""
