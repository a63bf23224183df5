"""How fast and how large: measured on this machine.

`train` measures training steps, `predict` from a scene file, made for it, to its mask;
`data` from a prepared data set to training batches; `suite` is all of them. A new
benchmark is a module with a `run` and a line in `__main__.COMMANDS`.
"""
