"""VideoMAE (Tong et al., 2022), MGMAE (Huang et al., 2023), VideoMAE V2 (Wang et al., 2023) and MAE-ST
(Feichtenhofer et al., 2022). The model is nn/masked_autoencoder.py.
"""
