"""Parts that several commands share: options, output, the storage, checks."""
