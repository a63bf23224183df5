"""How fast and how large: measured on this machine, on scenes made for it.

`predict` measures from a scene file to its mask. A new benchmark is a module with a
`run` and a line in `__main__.COMMANDS`.
"""
