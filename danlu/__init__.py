"""Danlu trains language models: a recipe in, a model out, with evidence that the run was right.

Floors (a file imports only from its own floor or from those before it):
core < samples < tokens < data < models < generate < evals < rewards < objectives < engine < runs < dialects < cli,
api, web
"""

__version__ = "0.1.0"
