//! gRPC and stored-format definitions of peat-gateway.
//!
//! The `.proto` files are the source; `src/gen` is generated from them and checked in, so that a
//! build needs no `protoc` and a change of the wire shows in review. `tests/generated.rs` fails when
//! the two differ; `UPDATE=1 cargo test -p peat-gateway-proto` writes the new code.
#![allow(missing_docs, reason = "generated code is documented in the .proto files")]

/// `peat.gateway`
pub mod peat {
    /// `peat.gateway`
    pub mod gateway {
        /// What nodes say to each other.
        pub mod cluster {
            /// Version 1.
            pub mod v1 {
                include!("gen/peat.gateway.cluster.v1.rs");
            }
        }
        /// What consensus keeps on disk.
        pub mod stored {
            /// Version 1.
            pub mod v1 {
                include!("gen/peat.gateway.stored.v1.rs");
            }
        }
    }
}

pub use peat::gateway::cluster::v1 as cluster;
pub use peat::gateway::stored::v1 as stored;
