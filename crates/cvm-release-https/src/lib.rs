//! HTTPS to one key holder: the transport of `cvm_release::client` in a boot and in a running
//! guest. The certificate is pinned, every wait is bounded, and so is every reply.

mod holder;
mod pinned;

pub use holder::{Attester, Endpoint, Holder, Limits, Resolve, Session, SystemResolver};
