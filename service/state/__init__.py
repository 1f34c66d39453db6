"""What must survive: the database behind the Gateway, its schema, and which gateways share it."""
