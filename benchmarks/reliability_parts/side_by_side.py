def side_by_side(setting):
    return {}
