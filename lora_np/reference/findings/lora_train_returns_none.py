import loralib as lora

l = lora.Linear(2, 2, r=1)
got = [
    type(l.eval()).__name__,
    type(lora.Embedding(2, 2, r=1).train()).__name__,
    type(lora.Conv2d(1, 1, 1, r=1).eval()).__name__,
    type(lora.MergedLinear(2, 2, r=1, enable_lora=[True]).eval()).__name__,
]
print(
    "layer.eval()/train() returns: got",
    got,
    "want the layer itself (nn.Module contract)",
)
raise SystemExit(int("NoneType" in got))
