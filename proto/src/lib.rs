//! The wire: generated messages and services, and the only place that converts them to and from the vocabulary.
//!
//! A message is input from outside: every conversion from it checks and may refuse. Types of this crate stop at the edge
//! modules of the programs.

pub mod convert;

/// Messages and services of protocol version 1.
pub mod v1 {
    #![allow(
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::large_enum_variant,
        unreachable_pub,
        missing_debug_implementations,
        unused_qualifications,
        elided_lifetimes_in_paths,
        reason = "generated code"
    )]
    tonic::include_proto!("millrace.scheduler.v1");
}

/// The part of etcd's API that masters call. It is generated here, from the published interface, and not taken from a
/// client library: those want a `protoc` to be built, and what is used is ten calls.
pub mod etcd {
    #![allow(
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::large_enum_variant,
        unreachable_pub,
        missing_debug_implementations,
        unused_qualifications,
        elided_lifetimes_in_paths,
        reason = "generated code"
    )]
    tonic::include_proto!("etcdserverpb");
}

/// Descriptors of all messages and services, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The version of the protocol between executors and masters that this build speaks.
pub const PROTOCOL: u32 = 1;

/// Bytes of one message at most; a definition document is the largest thing that travels.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
