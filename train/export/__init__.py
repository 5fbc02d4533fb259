"""Exports of a run to other formats: transformers, timm, torch.export and ONNX."""
