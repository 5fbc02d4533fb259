"""A run in the formats of others: transformers, timm, torch.export and ONNX."""
