"""Noise, encoders and decoders, and the LightningModule that trains them."""
