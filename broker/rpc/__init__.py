"""The only place where protobuf and the domain meet."""
