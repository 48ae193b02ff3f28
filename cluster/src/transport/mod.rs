//! gRPC between nodes, with mutual TLS.
