"""The contract's operations: each function is named by an `operationId` and only translates."""
