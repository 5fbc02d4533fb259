"""MAE (He et al., 2022): a quarter of a picture is seen. The model is nn/masked_autoencoder.py, which others share."""
