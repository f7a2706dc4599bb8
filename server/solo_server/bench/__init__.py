"""`solo bench`: what a network costs on this machine, alone, from bytes to RLE, and behind HTTP; beside its peers.

    command ─► verb ─► contenders, each a process of its own ─► interleaved rounds ─► samples ─► figures ─► table, JSON, HTML

Workers (`workers/`, and the peers in `solo_export.peers`) are the only ones that load a network. The parent is light: it asks,
listens to the rest of the machine, and counts.
"""
