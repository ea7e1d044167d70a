"""Find pictures that look alike: frozen features, autoencoder heads, exact retrieval, honest intervals."""

__version__ = "0.1.0"
