"""BERT (Devlin et al., 2019), MosaicBERT, Learning Better Masking (MRD, PTW) and PMLM.

The model is nn/token_model.py, which others share.
"""
