"""Model providers, the catalog of models, retry and fallback."""
