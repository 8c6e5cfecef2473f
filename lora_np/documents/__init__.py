"""Five articles on LoRA (D0 … D4): every claim as code with a figure and a verdict."""
