"""Model folders of every family, with real structure and next to no bytes; nothing is downloaded.

    python -m tests.zoo --into DIR             writes every specimen, the broken ones too
    python -m tests.zoo --into DIR --count N   writes N folders: specimens again and again, under other names
    make test-zoo                              starts all that vLLM can start on this machine's CPU

- ``configs/``: config.json of one model each, at its published sizes. Written by transformers' own
  configuration classes where those know the model (the newer shape, ``rope_parameters`` and ``dtype``),
  else by hand in the shape in which the model was published (``rope_theta``, ``torch_dtype``).
- ``templates/``: chat templates in the shape of the real ones, with the markers that tell families apart.
- What is expected of each specimen stands beside it, and was written by hand from the sources: vLLM's
  recipes and registries, model cards, published sizes. It was never taken from what our code says.
"""
