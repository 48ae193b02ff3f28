//! What clients send: the gateway's HTTP, or etcd's gRPC, of which the few messages are written here.

use std::io;

use prost::Message as _;

use super::http2::{Http2, Method, Request};

/// Value size of writes, bytes.
pub(super) const VALUE_BYTES: usize = 256;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// Replace a 256-byte value.
    Write,
    /// Read it, linearizable.
    Read,
    /// Read it from whichever node is asked.
    StaleRead,
}

/// Whom they speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// `PATCH` and `GET` of organisations.
    Gateway,
    /// `Put` and `Range`.
    Etcd,
}

impl Method {
    /// As HTTP/1.1 writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Patch => "PATCH",
        }
    }
}

impl Protocol {
    /// Adds a request about `key` to the connection's output; returns its stream.
    ///
    /// # Errors
    /// See [`Http2::send`].
    pub(super) fn send(
        self,
        connection: &mut Http2,
        workload: Workload,
        key: &str,
        number: u64,
    ) -> io::Result<u32> {
        match self {
            Protocol::Gateway => {
                let (method, path, body) = Self::gateway_request(workload, key, number);
                let body = body.as_bytes();
                connection.send(Request { method, path: &path, grpc: false, body })
            }
            Protocol::Etcd => {
                let (path, body) = Self::etcd_request(workload, key, number);
                connection.send(Request { method: Method::Post, path, grpc: true, body: &body })
            }
        }
    }

    /// The gateway's request: method, path, body.
    pub(super) fn gateway_request(
        workload: Workload,
        key: &str,
        number: u64,
    ) -> (Method, String, String) {
        match workload {
            Workload::Write => {
                let body = format!(r#"{{"display_name":"{number:0VALUE_BYTES$}"}}"#);
                (Method::Patch, format!("/orgs/{key}"), body)
            }
            Workload::Read => (Method::Get, format!("/orgs/{key}"), String::new()),
            Workload::StaleRead => {
                (Method::Get, format!("/orgs/{key}?consistency=stale"), String::new())
            }
        }
    }

    fn etcd_request(workload: Workload, key: &str, number: u64) -> (&'static str, Vec<u8>) {
        let key = key.as_bytes().to_vec();
        if workload == Workload::Write {
            let value = format!("{number:0VALUE_BYTES$}").into_bytes();
            return ("/etcdserverpb.KV/Put", Put { key, value }.encode_to_vec());
        }
        let serializable = workload == Workload::StaleRead;
        ("/etcdserverpb.KV/Range", Range { key, serializable }.encode_to_vec())
    }

    /// Reads from etcd's `Maintenance.Status` whether the node that answered leads.
    pub(super) fn etcd_leads(body: &[u8]) -> Option<bool> {
        let status = Status::decode(body.get(5..)?).ok()?;
        Some(status.leader != 0 && status.header?.member_id == status.leader)
    }
}

/// The path of etcd's `Maintenance.Status`.
pub(super) const ETCD_STATUS: &str = "/etcdserverpb.Maintenance/Status";

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Range {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}
