"""`solo bench`: measures a network on this machine: alone, from bytes to RLE, and behind HTTP; side by side with its peers.

    command ─► subcommand ─► contenders, one process each ─► interleaved rounds ─► samples ─► figures ─► table, JSON, HTML

Only workers (`workers/`, and the peers in `solo_export.peers`) load a network. The parent stays light: it sends tasks, watches the
load of the machine, and computes the figures.
"""
