"""The Masked Spiking Transformer (Wang et al., 2023): activations are spikes, some of them dropped."""
